"""Keylime measured-boot policy for nodes that boot one signed UKI.

The reference state is the release's policy, the same JSON that `stele attest` reads (docs/attestation.md): for each PCR the
values that are allowed, and the events that give them. A boot event log passes if, for each of these PCRs, what it measured
extends to an allowed value. Keylime itself compares the log with the quoted PCRs, for those named here.

Keylime's default policy, `accept-all`, compares nothing, and its `example` policy wants shim and GRUB.
"""

import hashlib
import typing

from keylime.mba.elchecking import policies, tests

# PCRs that the firmware and the UKI's stub extend before the kernel starts and nothing extends after.
RELEVANT_PCRS = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9, 11})


def digits(digest: str, bank: str) -> str:
    """The digits of "sha256:0123..." after its bank was checked."""
    name, _, value = digest.partition(":")
    if name != bank:
        raise ValueError(f"{digest} is not of the {bank} bank")
    return value


def tpm_policy(release: typing.Dict[str, typing.Any]) -> typing.Dict[str, typing.Any]:
    """Keylime's PCR allow-list of a release's policy."""
    bank = release["bank"]
    rules = {str(rule["pcr"]): [digits(one["value"], bank) for one in rule["allowed"]] for rule in release["pcrs"]}
    if not rules or not all(rules.values()):
        raise ValueError("the policy pins nothing")
    return {"mask": hex(sum(1 << int(pcr) for pcr in rules)), **rules}


class Release(tests.Test):
    """What was measured into the PCRs that a release names."""

    def __init__(self, release: typing.Mapping[str, typing.Any]):
        self.bank = release["bank"]
        self.rules = list(release["pcrs"])
        if not self.rules:
            raise ValueError("the policy pins nothing")

    def why_not(self, _globals: typing.Any, subject: tests.Data) -> str:
        events = subject.get("events") if isinstance(subject, dict) else None
        if not isinstance(events, list):
            return "the log has no events"
        for rule in self.rules:
            measured = [self.digest(event) for event in events if self.is_measured_into(event, rule["pcr"])]
            if None in measured:
                return f"an event of PCR {rule['pcr']} has no {self.bank} digest"
            value = bytes(hashlib.new(self.bank).digest_size)
            for digest in measured:
                value = hashlib.new(self.bank, value + bytes.fromhex(digest)).digest()
            if value.hex() not in [digits(one["value"], self.bank) for one in rule["allowed"]]:
                return f"PCR {rule['pcr']} is {value.hex()}: {self.difference(measured, rule)}"
        return ""

    def is_measured_into(self, event: typing.Any, pcr: int) -> bool:
        return event.get("PCRIndex") == pcr and event.get("EventType") != "EV_NO_ACTION"

    def digest(self, event: typing.Any) -> typing.Optional[str]:
        digests = [one["Digest"] for one in event.get("Digests", []) if one.get("AlgorithmId") == self.bank]
        return digests[0] if len(digests) == 1 else None

    def difference(self, measured: typing.List[typing.Any], rule: typing.Any) -> str:
        """The first event that differs from the release's first prediction."""
        expected = rule["allowed"][0].get("events", [])
        for number, event in enumerate(expected):
            if number >= len(measured):
                return f"{event['description'] or event['type']} was not measured"
            if measured[number] != digits(event["digest"], self.bank):
                return f"{event['description'] or event['type']} was predicted, something else was measured"
        return "it is no value of the release"


class SteleUki(policies.Policy):
    """See the module's documentation."""

    def get_relevant_pcrs(self) -> typing.FrozenSet[int]:
        return RELEVANT_PCRS

    def refstate_to_test(self, refstate: policies.RefState) -> tests.Test:
        return Release(refstate)


policies.register("stele-uki", SteleUki())
