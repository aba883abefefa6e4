//! SHA-256 (FIPS 180-4) and SM3 (GB/T 32905-2016): digests of padded messages, and levels of RFC 9162 trees.
//!
//! A compression is one straight line, because rounds that index an array by a variable would put it into memory; it
//! occurs once in each kernel, inside a loop over the blocks.

use stele_accel_hash::{HashAlgorithm, NODE_PREFIX};

use super::{BLOCK_WORDS, TAGGED_DIGEST_WORDS, entry, line};

/// Bits of a node's message: prefix and two digests.
const NODE_BITS: usize = 8 * 65;

/// FIPS 180-4 section 4.2.2.
const SHA256_ROUNDS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// FIPS 180-4 section 5.3.3.
const SHA256_START: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// GB/T 32905-2016 section 4.1.
const SM3_START: [u32; 8] =
    [0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e];

/// Digests of messages that the host padded.
pub(super) fn digest(source: &mut String, algorithm: HashAlgorithm) {
    functions(source, algorithm);
    entry(source);
    line(source, "let first = input[2u * index];");
    line(source, "let blocks = input[2u * index + 1u];");
    line(source, &format!("var state = {};", start(algorithm)));
    line(source, "for (var block = 0u; block < blocks; block++) {");
    line(source, &format!("let at = first + {BLOCK_WORDS}u * block;"));
    let words = join(BLOCK_WORDS, |word| format!("swap(input[at + {word}u])"));
    line(source, &format!("state = compress(state, {words});"));
    line(source, "}");
    line(source, "store(index, state);");
    line(source, "}");
}

/// One level: a node is the hash of its two children, or its only child.
pub(super) fn level(source: &mut String, algorithm: HashAlgorithm, first: bool) {
    let (buffer, stride, base) =
        if first { ("input", 8, "0u") } else { ("output", TAGGED_DIGEST_WORDS, "parameters.below") };
    functions(source, algorithm);
    entry(source);
    line(source, &format!("let at = {stride}u * ({base} + 2u * index);"));
    line(source, "let node = parameters.target_node + index;");
    for word in 0..8 {
        line(source, &format!("let c{word} = swap({buffer}[at + {word}u]);"));
    }
    let only = join(8, |word| format!("c{word}"));
    line(source, &format!("if (2u * index + 1u == parameters.below_count) {{ store(node, State({only})); return; }}"));
    for word in 8..16 {
        line(source, &format!("let c{word} = swap({buffer}[at + {}u]);", stride + word - 8));
    }
    // The prefix shifts all 64 bytes by one, so the last of them opens a second block.
    line(source, &format!("let w0 = ({NODE_PREFIX}u << 24u) | (c0 >> 8u);"));
    for word in 1..16 {
        line(source, &format!("let w{word} = (c{} << 24u) | (c{word} >> 8u);", word - 1));
    }
    line(source, &format!("var state = {};", start(algorithm)));
    line(source, "for (var block = 0u; block < 2u; block++) {");
    line(source, "let second = block == 1u;");
    let words = join(BLOCK_WORDS, |word| {
        let tail = match word {
            0 => "(c15 << 24u) | 0x800000u".to_owned(),
            15 => format!("{NODE_BITS}u"),
            _ => "0u".to_owned(),
        };
        format!("select(w{word}, {tail}, second)")
    });
    line(source, &format!("state = compress(state, {words});"));
    line(source, "}");
    line(source, "store(node, state);");
    line(source, "}");
}

/// `State`, `swap`, `compress` and `store`.
fn functions(source: &mut String, algorithm: HashAlgorithm) {
    line(source, &format!("struct State {{ {} }}", join(8, |word| format!("s{word}: u32"))));
    line(source, "fn swap(word: u32) -> u32 {");
    line(source, "return (word << 24u) | ((word & 0xff00u) << 8u) | ((word >> 8u) & 0xff00u) | (word >> 24u);");
    line(source, "}");
    line(source, "fn rotate(word: u32, bits: u32) -> u32 { return (word << bits) | (word >> (32u - bits)); }");
    match algorithm {
        HashAlgorithm::Sha256 => compress_sha256(source),
        HashAlgorithm::Sm3 => compress_sm3(source),
    }
    line(source, "fn store(node: u32, state: State) {");
    line(source, &format!("let at = {TAGGED_DIGEST_WORDS}u * node;"));
    line(source, "var seal = tag_start(node);");
    for word in 0..8 {
        line(source, &format!("let d{word} = swap(state.s{word});"));
        line(source, &format!("output[at + {word}u] = d{word};"));
        line(source, &format!("seal = tag_fold(seal, d{word});"));
    }
    line(source, "output[at + 8u] = seal;");
    line(source, "}");
}

fn start(algorithm: HashAlgorithm) -> String {
    let words = match algorithm {
        HashAlgorithm::Sha256 => SHA256_START,
        HashAlgorithm::Sm3 => SM3_START,
    };
    format!("State({})", join(8, |word| format!("{:#x}u", words[word])))
}

/// FIPS 180-4 section 6.2.2.
fn compress_sha256(source: &mut String) {
    line(source, "fn rotr(word: u32, bits: u32) -> u32 { return rotate(word, 32u - bits); }");
    compress_head(source);
    for (round, constant) in SHA256_ROUNDS.into_iter().enumerate() {
        if round >= BLOCK_WORDS {
            let [back2, back7, back15, back16] = [2, 7, 15, 16].map(|back| round - back);
            line(
                source,
                &format!(
                    "let w{round} = (rotr(w{back2}, 17u) ^ rotr(w{back2}, 19u) ^ (w{back2} >> 10u)) + w{back7} \
                     + (rotr(w{back15}, 7u) ^ rotr(w{back15}, 18u) ^ (w{back15} >> 3u)) + w{back16};"
                ),
            );
        }
        line(
            source,
            &format!(
                "t1 = h + (rotr(e, 6u) ^ rotr(e, 11u) ^ rotr(e, 25u)) + ((e & f) ^ (~e & g)) + {constant:#x}u + w{round};"
            ),
        );
        line(source, "t2 = (rotr(a, 2u) ^ rotr(a, 13u) ^ rotr(a, 22u)) + ((a & b) ^ (a & c) ^ (b & c));");
        line(source, "h = g; g = f; f = e; e = d + t1; d = c; c = b; b = a; a = t1 + t2;");
    }
    let sums = join(8, |word| format!("state.s{word} + {}", ["a", "b", "c", "d", "e", "f", "g", "h"][word]));
    line(source, &format!("return State({sums});"));
    line(source, "}");
}

/// GB/T 32905-2016 section 5.3.
fn compress_sm3(source: &mut String) {
    line(source, "fn p0(word: u32) -> u32 { return word ^ rotate(word, 9u) ^ rotate(word, 17u); }");
    line(source, "fn p1(word: u32) -> u32 { return word ^ rotate(word, 15u) ^ rotate(word, 23u); }");
    compress_head(source);
    for round in BLOCK_WORDS..68 {
        let [back3, back6, back9, back13, back16] = [3, 6, 9, 13, 16].map(|back| round - back);
        line(
            source,
            &format!(
                "let w{round} = p1(w{back16} ^ w{back9} ^ rotate(w{back3}, 15u)) ^ rotate(w{back13}, 7u) ^ w{back6};"
            ),
        );
    }
    for round in 0..64u32 {
        let constant = if round < 16 { 0x79cc_4519u32 } else { 0x7a87_9d8a };
        let (ff, gg) =
            if round < 16 { ("a ^ b ^ c", "e ^ f ^ g") } else { ("(a & b) | (a & c) | (b & c)", "(e & f) | (~e & g)") };
        let constant = constant.rotate_left(round % 32);
        line(source, "t2 = rotate(a, 12u);");
        line(source, &format!("t1 = rotate(t2 + e + {constant:#x}u, 7u);"));
        line(source, &format!("t2 = ({ff}) + d + (t1 ^ t2) + (w{round} ^ w{});", round + 4));
        line(source, &format!("t1 = ({gg}) + h + t1 + w{round};"));
        line(source, "d = c; c = rotate(b, 9u); b = a; a = t2; h = g; g = rotate(f, 19u); f = e; e = p0(t1);");
    }
    let sums = join(8, |word| format!("state.s{word} ^ {}", ["a", "b", "c", "d", "e", "f", "g", "h"][word]));
    line(source, &format!("return State({sums});"));
    line(source, "}");
}

fn compress_head(source: &mut String) {
    let words = join(BLOCK_WORDS, |word| format!("w{word}: u32"));
    line(source, &format!("fn compress(state: State, {words}) -> State {{"));
    for (word, name) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
        line(source, &format!("var {name} = state.s{word};"));
    }
    line(source, "var t1: u32;");
    line(source, "var t2: u32;");
}

fn join(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().join(", ")
}
