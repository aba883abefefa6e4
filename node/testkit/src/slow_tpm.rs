//! A TPM that signs at the pace of a chip: a relay before swtpm that holds the answers to signing commands back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Commands that sign: `TPM2_Certify`, `TPM2_Quote`, `TPM2_Sign`, TPM 2.0 Library part 2, section 6.5.2.
const SIGNING: [u32; 3] = [0x148, 0x158, 0x15d];
/// Longest command or answer; TPMs take some 4 KiB.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// Relays `port` to `tpm`, with `delay` for each signature, and the port after it to the one after `tpm`, the emulator's
/// control. Threads end with the process.
///
/// # Errors
/// When a port is taken.
pub fn relay(port: u16, tpm: u16, delay: Duration) -> Result<()> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port}"));
    let (commands, control) = (listen(port)?, listen(port + 1)?);
    thread::spawn(move || {
        for client in commands.incoming().map_while(io::Result::ok) {
            // One connection at a time, as the emulator has it.
            drop(connect(tpm).and_then(|tpm| answer(client, tpm, delay)));
        }
    });
    thread::spawn(move || {
        for client in control.incoming().map_while(io::Result::ok) {
            thread::spawn(move || drop(connect(tpm + 1).and_then(|tpm| pipe(client, tpm))));
        }
    });
    Ok(())
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Commands and their answers, in turns.
fn answer(mut client: TcpStream, mut tpm: TcpStream, delay: Duration) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let command = frame(&mut client)?;
        let code = command.get(6..10).and_then(|code| code.try_into().ok()).map_or(0, u32::from_be_bytes);
        tpm.write_all(&command)?;
        let answer = frame(&mut tpm)?;
        if SIGNING.contains(&code) {
            thread::sleep(delay);
        }
        client.write_all(&answer)?;
    }
}

/// A command or an answer: tag (2 bytes), length (4 bytes, of all), and the rest.
fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes)?;
    let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(10..=FRAME_BYTES_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[10..])?;
    Ok(bytes)
}

fn pipe(client: TcpStream, tpm: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_tpm) = (client.try_clone()?, tpm.try_clone()?);
    let (mut from_tpm, mut to_client) = (tpm, client);
    let back = thread::spawn(move || io::copy(&mut from_tpm, &mut to_client).map(drop));
    io::copy(&mut from_client, &mut to_tpm)?;
    to_tpm.shutdown(std::net::Shutdown::Both)?;
    back.join().map_err(|_| io::Error::other("a thread panicked"))?
}
