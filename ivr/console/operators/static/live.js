// Rows of calls, brought up to date by server-sent events. Text only: nothing that comes is read as HTML.
"use strict";
const MOST_ROWS = 200, AGAIN_MS = 5000, MOST_FAILURES = 3;
const state = document.getElementById("live-state");
const rows = document.getElementById("live");
const blank = document.getElementById("live-row").content.querySelector("tr");
let after = state.dataset.after, failures = 0;

function show(step) {
  let row = [...rows.children].find((one) => one.dataset.sid === step.sid);
  if (!row) {
    row = blank.cloneNode(true);
    row.dataset.sid = step.sid;
    const link = row.querySelector("a");
    link.href = state.dataset.call + encodeURIComponent(step.sid);
    link.querySelector("code").textContent = step.sid;
  }
  row.querySelector(".state code").textContent = step.state;
  row.querySelector(".step").textContent = step.step;
  row.querySelector(".time").textContent = step.at.slice(11, 19);
  rows.prepend(row);
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
  document.getElementById("live-none")?.remove();
}

function tell(text) {
  if (state.textContent !== text) state.textContent = text;  // else it is read out again
}

function open() {
  const events = new EventSource(state.dataset.events + "?after=" + after);
  events.addEventListener("open", () => { failures = 0; tell(state.dataset.live); });
  events.addEventListener("step", (event) => { after = event.lastEventId; show(JSON.parse(event.data)); });
  events.addEventListener("error", () => {
    if (events.readyState !== EventSource.CLOSED) return;  // the browser comes again by itself
    tell(state.dataset.lost);
    if (++failures > MOST_FAILURES) location.reload();  // signed out, perhaps
    else setTimeout(open, AGAIN_MS);
  });
}

open();
