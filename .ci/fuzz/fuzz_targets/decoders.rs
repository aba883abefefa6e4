//! libFuzzer's target for all decoders; without `--cfg fuzzing` a program that writes the corpus and replays inputs.

#![allow(unexpected_cfgs, reason = "cargo-fuzz sets `fuzzing`; the workspace's lints know no name of one crate")]
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stele_fuzz::any(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["corpus", folder] => {
            std::fs::create_dir_all(folder)?;
            for (number, target) in (0_u8..).zip(stele_fuzz::TARGETS) {
                for (index, input) in (target.corpus)().into_iter().enumerate() {
                    let path = std::path::Path::new(folder).join(format!("{}-{index}", target.name));
                    std::fs::write(path, [&[number][..], &input].concat())?;
                }
            }
            Ok(())
        }
        ["replay", ref files @ ..] if !files.is_empty() => {
            files.iter().try_for_each(|file| std::fs::read(file).map(|bytes| stele_fuzz::any(&bytes)))
        }
        _ => Err(std::io::Error::other("usage: decoders corpus FOLDER | replay FILE…")),
    }
}
