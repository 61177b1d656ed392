//! Reading what a worker writes, never holding more of it than allowed.

use std::collections::VecDeque;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Lines of a bounded length.
pub(super) struct Lines<R> {
    source: BufReader<R>,
    line: Vec<u8>,
    most: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(source: R, most: usize) -> Self {
        Self {
            source: BufReader::new(source),
            line: Vec::new(),
            most,
        }
    }

    /// The next line, without its end; None at the end. A longer line, or a last one without end, is an error.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        if self.line.capacity() > 1 << 20 {
            self.line.shrink_to(0);
        }
        let count = (&mut self.source).take(self.most as u64 + 1).read_until(b'\n', &mut self.line).await?;
        match self.line.split_last() {
            None => Ok(None),
            Some((b'\n', line)) => Ok(Some(line)),
            Some(_) if count > self.most => Err(io::Error::other(format!("a line has more than {} bytes", self.most))),
            Some(_) => Err(io::Error::other("the last line is not finished")),
        }
    }
}

/// The last bytes of a stream.
pub(super) struct StderrTail {
    bytes: VecDeque<u8>,
    most: usize,
}

impl StderrTail {
    pub fn new(most: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            most,
        }
    }

    /// Read a stream to its end and keep its last bytes.
    pub async fn follow(&mut self, mut source: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            self.bytes.extend(&buffer[..count]);
            let surplus = self.bytes.len().saturating_sub(self.most);
            self.bytes.drain(..surplus);
        }
    }

    /// As harmless text, line ends kept.
    pub fn text(&self) -> String {
        let (a, b) = self.bytes.as_slices();
        let bytes = [a, b].concat();
        let lines: Vec<String> = bytes.split(|byte| *byte == b'\n').map(crate::text::escape).collect();
        lines.join("\n").trim().to_string()
    }
}
