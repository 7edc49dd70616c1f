"""The verifiable random function against the RFC's vectors, and against whoever would choose its output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivr.ledger import vrf

#: RFC 9381, appendix B.3, examples 16 to 18: secret key, public key, alpha, pi, beta.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d97"
        "27d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465"
        "301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0"
        "e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_the_vectors_of_the_rfc(vector: tuple[str, ...]) -> None:
    secret, public, alpha, pi, beta = map(bytes.fromhex, vector)
    assert vrf.public_key(secret) == public
    assert vrf.prove(secret, alpha) == pi
    assert vrf.verify(public, alpha, pi) == vrf.output(pi) == beta


@given(secret=st.binary(min_size=32, max_size=32), alpha=st.binary(max_size=80), bit=st.integers(0, 80 * 8 - 1))
def test_a_proof_passes_as_it_is_and_in_no_other_form(secret: bytes, alpha: bytes, bit: int) -> None:
    public, proof = vrf.public_key(secret), vrf.prove(secret, alpha)
    assert vrf.verify(public, alpha, proof) == vrf.output(proof)
    changed = bytearray(proof)
    changed[bit // 8] ^= 1 << bit % 8
    for bad in (bytes(changed), proof[:-1], proof + b"\x00", b""):
        with pytest.raises(vrf.BadProof):
            vrf.verify(public, alpha, bad)
    with pytest.raises(vrf.BadProof):
        vrf.verify(public, alpha + b"x", proof)
    with pytest.raises(vrf.BadProof):
        vrf.verify(vrf.public_key(bytes(32)) if secret != bytes(32) else public, alpha + b"y", proof)


def test_a_scalar_above_the_order_is_refused_though_it_means_the_same() -> None:
    public, proof = vrf.public_key(bytes(32)), vrf.prove(bytes(32), b"a")
    s = int.from_bytes(proof[48:], "little") + 2**252 + 27742317777372353535851937790883648493
    with pytest.raises(vrf.BadProof):
        vrf.verify(public, b"a", proof[:48] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_of_small_order_is_refused(public: bytes) -> None:
    with pytest.raises(vrf.BadProof):
        vrf.verify(public, b"a", vrf.prove(bytes(32), b"a"))
