"""Judges an unpacked evidence package with Keylime, as its `POST /verify/evidence` does; nothing of ours but the policy.

    KEYLIME_VERIFIER_CONFIG=verifier.conf python3 verify.py FOLDER NONCE POLICY

FOLDER has the files of the package's tar, NONCE is what was asked with (64 hexadecimal digits), POLICY the release's. The
attestation key must be the one that was enrolled: compare its name first (docs/attestation.md). Exit codes: 0 passed, 4
failed, with Keylime's reasons as JSON.
"""

import base64
import hashlib
import json
import pathlib
import sys

from keylime import cloud_verifier_common, config
from keylime.ima import ima
from keylime.mba import mba

import stele_uki


def main(folder: str, nonce: str, policy: str) -> int:
    part = lambda name: pathlib.Path(folder, name).read_bytes()
    text = lambda name: base64.b64encode(part(name)).decode()
    release = json.loads(pathlib.Path(policy).read_text(encoding="utf-8"))
    head = hashlib.sha256(part("checkpoint")).digest()
    data = hashlib.sha256(b"stele/quote/v1" + bytes.fromhex(nonce) + head).digest()
    has_log = pathlib.Path(folder, "bios_measurements").exists()
    ima_log = part("ima_log").decode() if pathlib.Path(folder, "ima_log").exists() else ""
    mba.load_imports()
    failure = cloud_verifier_common.process_verify_attestation(
        # No check reads the endorsement key; it has to be there.
        ek=text("ak.pub"),
        ak=text("ak.pub"),
        quote="r" + ":".join(text(name) for name in ("quote.msg", "quote.sig", "pcrs.bin")),
        nonce=base64.b64encode(data).decode(),
        hash_alg=release["bank"],
        tpm_policy=json.dumps(stele_uki.tpm_policy(release)),
        runtime_policy=ima.deserialize_runtime_policy(""),
        mb_policy=json.dumps(release),
        ima_measurement_list=ima_log,
        mb_measurement_list=text("bios_measurements") if has_log else "",
        mb_policy_name=config.get("verifier", "measured_boot_policy_name"),
    )
    events = [{"type": event.event_id, "context": json.loads(event.context)} for event in failure.events]
    print(json.dumps({"valid": not events, "failures": events}, indent=2))
    return 4 if events else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
