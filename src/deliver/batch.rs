//! Frames that are written together: small ones are copied into a buffer, large ones are written in place.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;

use crate::event::{Frame, FrameId};

/// A buffer that collects frames.
pub(crate) trait Sink {
    fn append(&mut self, frame: &Frame);

    /// Returns the number of bytes that were appended so far.
    fn len(&self) -> usize;
}

/// Copies every frame.
impl Sink for Vec<u8> {
    fn append(&mut self, frame: &Frame) {
        self.extend_from_slice(frame.as_bytes());
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Several writes in one reused buffer. What is appended between `begin` and `seal` becomes one chunk, or stays
/// unframed.
///
/// A chunk's size precedes the chunk, but is known only at its end. So the buffer reserves a place of fixed width for
/// it (RFC 9112 7.1 allows leading zeros), and nothing is copied twice. A large frame is not copied at all.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// The frames that are not among the bytes, each with its position there.
    large: Vec<(usize, Frame)>,
    /// The number of bytes of the large frames.
    large_len: usize,
    chunked: bool,
    /// The start of the current write.
    start: Position,
    /// The position of the current chunk's size, and the length of everything before the chunk's body.
    chunk: usize,
    before_body: usize,
}

/// A position in a batch: in its bytes, and among its large frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    byte: usize,
    large: usize,
}

/// One write of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchedWrite {
    start: Position,
    end: Position,
}

impl BatchedWrite {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn bytes(&self) -> Range<usize> {
        self.start.byte..self.end.byte
    }
}

impl Batch {
    const SIZE: &[u8] = b"00000000\r\n";

    /// The capacity that an emptied batch may keep, so that one busy moment does not occupy memory forever.
    const KEPT_CAPACITY: usize = 128 * 1024;

    /// Begins another write with `head`, which is not part of the body.
    pub(crate) fn begin(&mut self, head: &[u8], chunked: bool) {
        self.start = self.end();
        self.bytes.extend_from_slice(head);
        self.chunked = chunked;
        self.chunk = self.bytes.len();
        if chunked {
            self.bytes.extend_from_slice(Self::SIZE);
        }
        self.before_body = self.len();
    }

    /// Completes the write. If it is the `last`, also appends the end of a chunked body.
    pub(crate) fn seal(&mut self, last: bool) -> BatchedWrite {
        if self.chunked {
            match self.len() - self.before_body {
                // A chunk of size zero would end the body.
                0 => self.bytes.truncate(self.chunk),
                size => {
                    let mut place = &mut self.bytes[self.chunk..];
                    write!(place, "{size:08x}").expect("BUG: the place of a chunk's size is too small");
                    self.bytes.extend_from_slice(b"\r\n");
                }
            }
            if last {
                self.bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        BatchedWrite { start: self.start, end: self.end() }
    }

    /// Removes the write that was sealed last.
    pub(crate) fn undo(&mut self, write: &BatchedWrite) {
        self.bytes.truncate(write.start.byte);
        for (_, frame) in self.large.drain(write.start.large..) {
            self.large_len -= frame.len();
        }
    }

    /// Removes all writes, and releases excess capacity.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEPT_CAPACITY);
        self.large.clear();
        self.large_len = 0;
    }

    /// Returns the large frames of a write.
    pub(crate) fn large_frames(&self, write: &BatchedWrite) -> Vec<FrameId> {
        self.large[write.start.large..write.end.large].iter().map(|(_, frame)| frame.frame_id()).collect()
    }

    fn end(&self) -> Position {
        Position { byte: self.bytes.len(), large: self.large.len() }
    }

    /// Returns the pieces of a write, in order.
    fn pieces<'b>(&'b self, write: &BatchedWrite) -> impl Iterator<Item = Piece<&'b [u8]>> + use<'b> {
        let bytes = write.bytes();
        let mut from = bytes.start;
        let large = &self.large[write.start.large..write.end.large];
        let before_and_frame = large.iter().flat_map(move |(at, frame)| {
            let before = Piece::Bytes(&self.bytes[std::mem::replace(&mut from, *at)..*at]);
            [before, Piece::Frame(frame.clone())]
        });
        let behind = large.last().map_or(bytes.start, |(at, _)| *at);
        before_and_frame.chain([Piece::Bytes(&self.bytes[behind..bytes.end])])
    }

    /// Writes all of a write to a writer that may block.
    pub(crate) fn write_all(&self, write: &BatchedWrite, writer: &mut (impl Write + ?Sized)) -> io::Result<()> {
        if write.start.large == write.end.large {
            return writer.write_all(&self.bytes[write.bytes()]);
        }
        for piece in self.pieces(write) {
            writer.write_all(piece.as_bytes())?;
        }
        Ok(())
    }

    /// Writes as much of a write as the writer takes without blocking. Returns the rest, if there is one.
    pub(crate) fn write_some(
        &self,
        write: &BatchedWrite,
        writer: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Option<Pending>> {
        let mut writer = writer;
        if write.start.large == write.end.large {
            let bytes = &self.bytes[write.bytes()];
            let written = writer(bytes)?;
            let left = &bytes[written..];
            return Ok((!left.is_empty()).then(|| Pending::of([Piece::Bytes(left)].into_iter(), 0)));
        }
        let mut pieces = self.pieces(write);
        while let Some(piece) = pieces.next() {
            let written = writer(piece.as_bytes())?;
            if written < piece.as_bytes().len() {
                return Ok(Some(Pending::of([piece].into_iter().chain(pieces), written)));
            }
        }
        Ok(None)
    }
}

impl Sink for Batch {
    fn append(&mut self, frame: &Frame) {
        if !frame.is_large() {
            self.bytes.extend_from_slice(frame.as_bytes());
        } else {
            self.large.push((self.bytes.len(), frame.clone()));
            self.large_len += frame.len();
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.large_len
    }
}

/// A part of a write: bytes of its own, or a shared frame.
enum Piece<B> {
    Bytes(B),
    Frame(Frame),
}

impl<B: AsRef<[u8]>> Piece<B> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_ref(),
            Self::Frame(frame) => frame.as_bytes(),
        }
    }
}

/// The part of a write that the writer has not taken yet. It copies small frames, and shares large ones.
pub(crate) struct Pending {
    pieces: VecDeque<Piece<Box<[u8]>>>,
    /// The number of bytes of the first piece that are written.
    written: usize,
}

impl Pending {
    /// Creates the rest of a write from its pieces. `written` bytes of the first piece are written.
    fn of<'b>(pieces: impl Iterator<Item = Piece<&'b [u8]>>, mut written: usize) -> Self {
        let mut rest = VecDeque::new();
        for piece in pieces {
            rest.push_back(match piece {
                Piece::Bytes(bytes) if rest.is_empty() => Piece::Bytes(bytes[std::mem::take(&mut written)..].into()),
                Piece::Bytes(bytes) => Piece::Bytes(bytes.into()),
                Piece::Frame(frame) => Piece::Frame(frame),
            });
        }
        Self { pieces: rest, written }
    }

    /// Returns the large frames of this rest.
    pub(crate) fn large_frames(&self) -> Vec<FrameId> {
        let frame_id = |piece: &Piece<_>| if let Piece::Frame(frame) = piece { Some(frame.frame_id()) } else { None };
        self.pieces.iter().filter_map(frame_id).collect()
    }

    /// Writes as much as the writer takes without blocking. Returns whether all of it is written.
    pub(crate) fn write_some(&mut self, mut writer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        while let Some(first) = self.pieces.front() {
            let bytes = &first.as_bytes()[self.written..];
            let written = writer(bytes)?;
            if written < bytes.len() {
                self.written += written;
                return Ok(false);
            }
            self.pieces.pop_front();
            self.written = 0;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn frame(len: usize) -> Frame {
        Event::new("x".repeat(len)).encode()
    }

    #[track_caller]
    fn sealed(chunked: bool, body: &[&str], last: bool) -> String {
        let mut batch = Batch::default();
        batch.begin(b"HEAD", chunked);
        for data in body {
            batch.append(&Event::new(*data).encode());
        }
        let write = batch.seal(last);
        let mut bytes = Vec::new();
        batch.write_all(&write, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_write_is_one_chunk_and_an_empty_one_is_none() {
        assert_eq!(sealed(true, &["0123456789abcdef!"], false), "HEAD00000019\r\ndata: 0123456789abcdef!\n\n\r\n");
        assert_eq!(sealed(true, &["a"], true), "HEAD00000009\r\ndata: a\n\n\r\n0\r\n\r\n");
        assert_eq!(sealed(true, &[], false), "HEAD");
        assert_eq!(sealed(true, &[], true), "HEAD0\r\n\r\n");
        assert_eq!(sealed(false, &["a"], true), "HEADdata: a\n\n");
    }

    /// Writes frames of these sizes, behind another write, to a writer that takes this many bytes at a time. Returns
    /// the bytes written, and those expected.
    fn written(frames: &[usize], at_a_time: usize) -> (Vec<u8>, Vec<u8>) {
        let mut batch = Batch::default();
        batch.begin(b"", true);
        batch.append(&frame(3));
        batch.append(&frame(Frame::LARGE));
        batch.seal(false);
        batch.begin(b"HEAD", true);
        let mut body = Vec::new();
        for len in frames {
            batch.append(&frame(*len));
            Sink::append(&mut body, &frame(*len));
        }
        let write = batch.seal(true);
        let expected = format!("HEAD{:08x}\r\n{}\r\n0\r\n\r\n", body.len(), String::from_utf8(body).unwrap());
        let mut bytes = Vec::new();
        let mut take = |part: &[u8]| {
            let some = part.len().min(at_a_time);
            bytes.extend_from_slice(&part[..some]);
            Ok(some)
        };
        let mut pending = batch.write_some(&write, &mut take).unwrap();
        while let Some(left) = &mut pending {
            if left.write_some(&mut take).unwrap() {
                pending = None;
            }
        }
        (bytes, expected.into_bytes())
    }

    #[test]
    fn a_batch_that_is_written_in_pieces_stays_whole() {
        let large = Frame::LARGE;
        for frames in [&[1][..], &[large], &[1, large, 2], &[large, large + 7], &[large, 1, large], &[1, 2, 3]] {
            for at_a_time in [7, 1_000, large, usize::MAX] {
                let (bytes, expected) = written(frames, at_a_time);
                assert!(bytes == expected, "{frames:?}, {at_a_time} bytes at a time");
            }
        }
    }

    #[test]
    fn a_large_frame_is_in_memory_once_however_little_of_it_is_written() {
        let frame = frame(Frame::LARGE);
        let mut batch = Batch::default();
        batch.begin(b"", true);
        batch.append(&frame);
        let write = batch.seal(false);
        let mut room = 1_000;
        let pending = batch.write_some(&write, |bytes| {
            let some = bytes.len().min(room);
            room -= some;
            Ok(some)
        });
        let pending = pending.unwrap().expect("it took 1,000 bytes only");
        let copied: usize =
            pending.pieces.iter().map(|piece| if let Piece::Bytes(bytes) = piece { bytes.len() } else { 0 }).sum();
        assert_eq!(copied, "\r\n".len());
    }

    #[test]
    fn an_undone_write_leaves_nothing() {
        let mut batch = Batch::default();
        batch.begin(b"", false);
        batch.append(&frame(1));
        let first = batch.seal(false);
        batch.begin(b"HEAD", true);
        batch.append(&frame(Frame::LARGE));
        let second = batch.seal(false);
        batch.undo(&second);
        assert_eq!((batch.len(), batch.end()), (frame(1).len(), first.end));
    }
}
