//! A real SMTP dialogue on loopback: mailin's state machine behind a small accept loop. Behaviour is set by a script of what happens at the final dot
//! and to recipients.

use mailin::{Action, Handler, Response, SessionBuilder, response};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server says at the final dot, mail by mail; afterwards `Take`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test binary uses its part")]
pub enum AtDot {
    /// 250.
    Take,
    /// 451: try again.
    Defer,
    /// 554: never.
    Refuse,
    /// The mail is taken, but the connection ends before 250 is said.
    Hang,
}

/// A mail as the server took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub from: String,
    pub to: Vec<String>,
    pub raw: String,
}

/// The running server.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    pub taken: Arc<Mutex<Vec<Taken>>>,
    pub script: Arc<Mutex<VecDeque<AtDot>>>,
    /// Recipients that do not exist (550).
    pub unknown: Arc<Mutex<Vec<String>>>,
}

struct Session {
    server: Server,
    mail: Taken,
    bytes: Vec<u8>,
    hang: Arc<Mutex<bool>>,
    failed: Arc<Mutex<bool>>,
}

impl Handler for Session {
    fn rcpt(&mut self, to: &str) -> Response {
        if self.server.unknown.lock().unwrap().iter().any(|unknown| unknown == to) {
            Response::custom(550, "5.1.1 no such mailbox".into())
        } else {
            response::OK
        }
    }
    fn data_start(&mut self, _: &str, from: &str, _: bool, to: &[String]) -> Response {
        self.mail = Taken {
            from: from.into(),
            to: to.to_vec(),
            raw: String::new(),
        };
        self.bytes.clear();
        response::OK
    }
    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.bytes.extend(line);
        Ok(())
    }
    fn data_end(&mut self) -> Response {
        let step = self.server.script.lock().unwrap().pop_front().unwrap_or(AtDot::Take);
        if matches!(step, AtDot::Take | AtDot::Hang) {
            self.mail.raw = String::from_utf8_lossy(&self.bytes).into_owned();
            self.server.taken.lock().unwrap().push(self.mail.clone());
        }
        // mailin stays in its data state after an error at the dot and would read the next command as text: the connection ends instead.
        *self.failed.lock().unwrap() = matches!(step, AtDot::Defer | AtDot::Refuse);
        match step {
            AtDot::Take => response::OK,
            AtDot::Defer => response::INTERNAL_ERROR,
            AtDot::Refuse => response::TRANSACTION_FAILED,
            AtDot::Hang => {
                *self.hang.lock().unwrap() = true;
                response::OK
            }
        }
    }
}

impl Server {
    /// Start on a free port of loopback. Its thread ends with the test's process.
    pub fn start(script: &[AtDot]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            taken: Arc::default(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            unknown: Arc::default(),
        };
        let inner = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = inner.clone();
                std::thread::spawn(move || {
                    let _ = serve(server, stream);
                });
            }
        });
        server
    }
}

fn serve(server: Server, mut stream: TcpStream) -> io::Result<()> {
    let hang = Arc::new(Mutex::new(false));
    let failed = Arc::new(Mutex::new(false));
    let mail = Taken {
        from: String::new(),
        to: Vec::new(),
        raw: String::new(),
    };
    let handler = Session {
        server,
        mail,
        bytes: Vec::new(),
        hang: hang.clone(),
        failed: failed.clone(),
    };
    let mut session = SessionBuilder::new("mail.test").build(IpAddr::from([127, 0, 0, 1]), handler);
    let mut reader = BufReader::new(stream.try_clone()?);
    session.greeting().write_to(&mut stream)?;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let answer = session.process(&line);
        if *hang.lock().unwrap() {
            return Ok(());
        }
        match answer.action {
            Action::Reply => answer.write_to(&mut stream)?,
            Action::Close => return answer.write_to(&mut stream),
            _ => {}
        }
        stream.flush()?;
        if *failed.lock().unwrap() {
            return Ok(());
        }
        line.clear();
    }
    Ok(())
}
