"""Envelopes over NATS JetStream, where the institutions share one already: ``pip install 'pay-by-voice[nats]'``.

Each member has a subject of its own in one stream of the chain. What a member does not fetch within two minutes is
dropped: the rules send again what matters. The server sees what travels, as a network does, and can neither change nor
forge it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from ivr.ledger.transport import LONGEST_ENVELOPE, Busy, Deliver, NotAuthentic, NotDelivered
from ivr.ledger.wire import Member

KEPT_S = 120.0
MOST_BYTES = 1024 * 1024 * 1024
RECEIPT_S = 2.0
AGAIN_S = 1.0

log = structlog.get_logger(__name__)


class NatsTransport:
    """One connection, one stream a chain, one subject a member; receipts come back on inboxes.

    The server must take messages of ``LONGEST_ENVELOPE`` bytes (``max_payload``).
    """

    def __init__(self, url: str, chain: str, name: str) -> None:
        self._url, self._name = url, name
        self._prefix = f"ledger.{chain[:16]}"
        self._stream = f"ledger-{chain[:16]}"
        self._client: Client | None = None
        self._subscription: JetStreamContext.PushSubscription | None = None
        self._again: asyncio.Task[None] | None = None

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._client = await nats.connect(
            self._url, max_reconnect_attempts=-1, name=f"ledger {self._name}", reconnected_cb=self._reconnected
        )
        self._stream_context: JetStreamContext = self._client.jetstream()
        await self._listen()

    async def _reconnected(self) -> None:
        """A server that was away for more than moments has forgotten who listens, and perhaps the stream."""
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.create_task(self._listen_again())

    async def _listen_again(self) -> None:
        while True:
            try:
                await self._listen()
            except (NatsError, TimeoutError, OSError) as error:
                log.warning("not listening yet", reason=type(error).__name__)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _listen(self) -> None:
        wanted = StreamConfig(
            name=self._stream,
            subjects=[f"{self._prefix}.*"],
            storage=StorageType.FILE,
            max_age=KEPT_S,
            max_bytes=MOST_BYTES,
            max_msg_size=LONGEST_ENVELOPE + 1024,
        )
        await self._stream_context.add_stream(wanted)
        if self._subscription is not None:
            with suppress(NatsError, TimeoutError):
                await self._subscription.unsubscribe()
        self._subscription = await self._stream_context.subscribe(
            f"{self._prefix}.{self._name}",
            cb=self._arrived,
            manual_ack=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
        )

    async def _arrived(self, message: Msg) -> None:
        reply = (message.headers or {}).get("Receipt-To", "")
        try:
            given = await self._deliver(message.data)
        except NotAuthentic as error:
            log.warning("envelope refused", reason=str(error))
            await message.term()
            return
        except Busy:
            await message.nak(delay=0.1)
            return
        await message.ack()
        if reply and self._client is not None:
            await self._client.publish(reply, given)

    async def send(self, to: Member, sealed: bytes) -> bytes:
        assert self._client is not None
        inbox = self._client.new_inbox()
        try:
            waits = await self._client.subscribe(inbox, max_msgs=1)
            try:
                headers = {"Receipt-To": inbox}
                await self._stream_context.publish(f"{self._prefix}.{to.name}", sealed, headers=headers)
                given: bytes = (await waits.next_msg(timeout=RECEIPT_S)).data
            finally:
                with suppress(NatsError):  # it ended with the one message it was for
                    await waits.unsubscribe()
        except (NatsError, TimeoutError, OSError) as error:
            raise NotDelivered(type(error).__name__) from None
        return given

    async def stop(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._client is not None:
            with suppress(NatsError, TimeoutError, OSError):
                await self._client.close()
