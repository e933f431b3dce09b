//! The bytes of a direction: blocks that carry the connection, the sequence number and a checksum.
//! A byte that is lost, doubled, out of order or of another connection does not fit.

use std::io::{self, Read, Write};

/// Length of a block in bytes.
pub(crate) const BLOCK: usize = 64;

/// Which direction of a connection a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer = 1,
    ToClient = 2,
}

/// One block of a stream.
pub(crate) fn block(connection: u64, way: Way, sequence: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut state = connection ^ (way as u64) << 56 ^ sequence << 20;
    for (index, word) in block.chunks_exact_mut(8).enumerate() {
        let value = match index {
            0 => connection,
            1 => sequence,
            _ => {
                state = mixed(state);
                state
            }
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    block
}

/// `SplitMix64` (Steele, Lea, Flood 2014): spreads a number over 64 bits.
pub(crate) const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What is wrong with a stream.
#[derive(Debug)]
pub(crate) enum Broken {
    /// A byte that its sender did not send at this place.
    WrongByte(String),
    /// The connection ended, or failed, before the stream was complete. None: by FIN.
    Cut(Option<io::ErrorKind>),
}

/// Writes blocks `from..to` of a stream, many in one write.
pub(crate) fn write_blocks(
    mut stream: impl Write,
    connection: u64,
    way: Way,
    blocks: std::ops::Range<u64>,
) -> Result<(), Broken> {
    let mut bytes = Vec::with_capacity(256 * BLOCK);
    let end = blocks.end;
    for sequence in blocks {
        bytes.extend_from_slice(&block(connection, way, sequence));
        if bytes.len() == bytes.capacity() || sequence + 1 == end {
            stream.write_all(&bytes).map_err(|error| Broken::Cut(Some(error.kind())))?;
            bytes.clear();
        }
    }
    Ok(())
}

/// Reads blocks `from..to` of a stream, and checks each.
pub(crate) fn read_blocks(
    mut stream: impl Read,
    connection: u64,
    way: Way,
    blocks: std::ops::Range<u64>,
) -> Result<(), Broken> {
    let mut chunk = vec![0; 256 * BLOCK];
    let (mut filled, mut sequence) = (0, blocks.start);
    while sequence < blocks.end {
        let missing = usize::try_from(blocks.end - sequence).unwrap() * BLOCK - filled;
        let room = (chunk.len() - filled).min(missing);
        match stream.read(&mut chunk[filled..filled + room]) {
            Ok(0) => return Err(Broken::Cut(None)),
            Ok(count) => filled += count,
            Err(error) => return Err(Broken::Cut(Some(error.kind()))),
        }
        let whole = filled / BLOCK;
        for read in chunk[..whole * BLOCK].chunks_exact(BLOCK) {
            if *read != block(connection, way, sequence) {
                return Err(Broken::WrongByte(format!(
                    "connection {connection} {way:?}: block {sequence} is {read:02x?}"
                )));
            }
            sequence += 1;
        }
        chunk.copy_within(whole * BLOCK..filled, 0);
        filled -= whole * BLOCK;
    }
    Ok(())
}

/// Reads until the end of the stream, where nothing more may come.
pub(crate) fn read_end(mut stream: impl Read) -> Result<(), Broken> {
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Broken::WrongByte("a byte after the end".to_owned())),
        Err(error) => Err(Broken::Cut(Some(error.kind()))),
    }
}

#[test]
fn a_lost_a_doubled_and_a_foreign_block_are_found() {
    let stream = |blocks: &[(u64, u64)]| -> Vec<u8> {
        blocks.iter().flat_map(|(of, number)| block(*of, Way::ToServer, *number)).collect()
    };
    let read = |bytes: Vec<u8>| read_blocks(&bytes[..], 7, Way::ToServer, 0..3);
    assert!(read(stream(&[(7, 0), (7, 1), (7, 2)])).is_ok());
    for wrong in [[(7, 0), (7, 2), (7, 2)], [(7, 0), (7, 0), (7, 1)], [(7, 0), (8, 1), (7, 2)]] {
        assert!(matches!(read(stream(&wrong)), Err(Broken::WrongByte(_))), "{wrong:?}");
    }
    assert!(matches!(read(stream(&[(7, 0), (7, 1)])), Err(Broken::Cut(None))));
}
