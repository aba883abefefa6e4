#!/usr/bin/env bash
# Checks an evidence package of a node with tar, openssl and tpm2-tools alone. Every line is short enough to be read first.
#
#   bash check.sh PACKAGE NONCE NAME [PCRS]
#
#   PACKAGE  tar of `POST /v1/attest/quote` with `Accept: application/x-tar`, or the folder it was unpacked into
#   NONCE    the 64 hexadecimal digits that were asked with
#   NAME     name of the node's attestation key, 68 hexadecimal digits, from its enrolment
#   PCRS     file with the values that the release predicts, SHA-256 bank, one a line: "11 <64 hexadecimal digits>"
#
# Exit codes: 0 everything holds, 1 something does not, 2 usage.
set -euo pipefail
export LC_ALL=C

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
    sed -n '4,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
nonce=${2,,} name=${3,,} predicted=${4:+$(realpath "$4")}
fail() { echo "FAIL: $1"; exit 1; }
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }
sha256() { openssl dgst -sha256 -r | cut -c1-64; }

# All work is done on a copy.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -d "$1" ]; then
    cp -R "$1/." "$folder"
else
    tar -xf "$1" -C "$folder" --no-same-owner --no-same-permissions || fail "the package does not unpack"
fi
cd "$folder"
[ -z "$(find . ! -type f ! -type d)" ] || fail "the package has what is neither file nor folder"

# 1. It answers our question.
[ "$(hex nonce)" = "$nonce" ] || fail "the package is for another nonce"

# 2. The attestation key is the one that was enrolled: a name is the identifier of SHA-256 and the digest of the public
#    area, which follows two bytes of length.
[ "000b$(tail -c +3 ak.pub | sha256)" = "$name" ] || fail "the attestation key is another one than was enrolled"

# 3. The TPM quoted these PCRs for this nonce and this checkpoint, and the boot event log gives their values.
data=$({ printf stele/quote/v1; cat nonce; openssl dgst -sha256 -binary checkpoint; } | sha256)
log=()
[ ! -e bios_measurements ] || log=(-e bios_measurements)
tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f pcrs.bin -g sha256 -q "$data" "${log[@]}" > pcrs.checked \
    || fail "tpm2_checkquote refuses the quote"
[ ! -e bios_measurements ] || tpm2_eventlog bios_measurements > events.yaml || fail "tpm2_eventlog refuses the log"
echo "ok: quote with qualifying data $data${log:+, boot event log replayed}"

# 4. The values are those of the release.
judge() {
    while read -r pcr value || [ -n "$pcr" ]; do
        grep -iqE "^ *$pcr *: *0x$value\$" "$1" || fail "PCR $pcr of $2 is not $value"
    done < "$predicted"
}
if [ -n "$predicted" ]; then
    grep -q . "$predicted" || fail "no value is predicted"
    judge pcrs.checked "the quote"
    echo "ok: PCRs $(cut -d' ' -f1 "$predicted" | paste -sd, -) are as predicted"
else
    echo "note: PCRs were not compared; they are:"
    cat pcrs.checked
fi

# 5. Keys. A certification is a TPMS_ATTEST of type 8017: qualifying data, then, after clock and firmware version, the name of
#    the certified key, whose public area must be that of a key which never leaves its TPM and signs.
sized() { local length=$((16#${rest:0:4} * 2)); field=${rest:4:length}; rest=${rest:4+length}; }
certified() {
    local key=$1 field rest r s message area attributes
    message=$(hex "$key.msg") area=$(hex "$key.pub")
    rest=$(hex "$key.sig")
    [ "${rest:0:8}" = 0018000b ] || fail "$key: the signature is not ECDSA with SHA-256"
    rest=${rest:8}; sized; r=$field; sized; s=$field
    printf 'asn1=SEQUENCE:sig\n[sig]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "$r" "$s" \
        | openssl asn1parse -genconf - -noout -out sig.der
    openssl dgst -sha256 -verify ak.pem -signature sig.der "$key.msg" > /dev/null || fail "$key: the signature is wrong"
    [ "${message:0:12}" = ff5443478017 ] || fail "$key: this is no certification"
    rest=${message:12}; sized; sized
    [ "$field" = "$2" ] || fail "$key: the certification is of another key"
    rest=${rest:50}; sized
    [ "$field" = "000b$(sha256 < "$key.pub")" ] || fail "$key: the public area is not the certified one"
    attributes=$((16#${area:8:8}))
    [ $((attributes & 0x40032)) = $((0x40032)) ] || fail "$key: the key may leave its TPM, or does not sign"
    # The point of P-256, in the one and in the other encoding.
    [ "${area: -136:4}${area: -68:4}" = 00200020 ] || fail "$key: the key is not of P-256"
    [ "${area: -132:64}${area: -64}" = "$(hex "$key.spki" | tail -c 128)" ] || fail "$key: another key was certified"
}
# tpm2-tools 5.4 print no PEM of a file, so the two coordinates at its end get the head of a SubjectPublicKeyInfo.
area=$(hex ak.pub)
if [ "${area: -136:4}${area: -68:4}" = 00200020 ]; then
    point=3059301306072a8648ce3d020106082a8648ce3d03010703420004${area: -132:64}${area: -64}
    printf '%b' "$(sed 's/../\\x&/g' <<< "$point")" | openssl pkey -pubin -inform DER -pubout -out ak.pem
fi
for spki in keys/*.spki; do
    [ -e "$spki" ] || continue
    key=${spki%.spki}
    data=$({ printf stele/key/v1; cat "$spki"; } | sha256)
    if [ -e "$key.pub" ]; then
        certified "$key" "$data"
        echo "ok: $key is in the same TPM"
    elif [ -e "$key.pcrs" ]; then
        tpm2_checkquote -u ak.pub -m "$key.msg" -s "$key.sig" -f "$key.pcrs" -g sha256 -q "$data" > pcrs.checked \
            || fail "tpm2_checkquote refuses the quote of $key"
        [ -z "$predicted" ] || judge pcrs.checked "$key"
        echo "ok: the machine vouches for $key"
    else
        echo "note: nothing shows where $key is"
    fi
done
echo "PASS"
