//! A client of the DevTools protocol, with which tests use a browser as a person does, and break it:
//! <https://chromedevtools.github.io/devtools-protocol/>.
//!
//! The browser must be started with [`PORT`]. The protocol is JSON over a WebSocket, RFC 6455, of which this is the part that is needed: one
//! connection on the loopback interface, text frames, no extensions.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The flag that opens the protocol on a free port.
pub const PORT: &str = "--remote-debugging-port=0";

/// Longest wait for the browser.
const PATIENCE: Duration = Duration::from_secs(120);

const TEXT: u8 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;
const CLOSE: u8 = 8;

/// A connection to a browser.
pub struct Devtools {
    stream: BufReader<TcpStream>,
    next: u64,
    events: VecDeque<Value>,
}

impl Devtools {
    /// Connects to the browser with this profile.
    pub fn connect(profile: &Path) -> Devtools {
        let (port, path) = listening(profile);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        write!(
            stream.get_mut(),
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .unwrap();
        let mut status = String::new();
        stream.read_line(&mut status).unwrap();
        assert!(status.contains(" 101 "), "the browser answered {status}");
        let mut line = status;
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Devtools { stream, next: 0, events: VecDeque::new() }
    }

    /// Calls a method of the browser, or of the target of a session, and returns its result.
    pub fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, String> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.write(TEXT, message.to_string().as_bytes());
        loop {
            let mut answer = self.read(method);
            if answer["id"] == self.next {
                return match &answer["error"]["message"] {
                    Value::Null => Ok(answer["result"].take()),
                    problem => Err(format!("{method}: {problem}")),
                };
            }
            if answer["id"].is_null() {
                self.events.push_back(answer);
            }
        }
    }

    /// Events that arrived during calls, since the last call of this one.
    pub fn events(&mut self) -> impl Iterator<Item = Value> + '_ {
        self.events.drain(..)
    }

    fn write(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // The mask of a client may be any: it protects proxies, and here is none.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.get_mut().write_all(&frame).unwrap();
    }

    /// The next message, for which this method waits.
    fn read(&mut self, method: &str) -> Value {
        let mut message = Vec::new();
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).unwrap_or_else(|error| panic!("{method}: {error}"));
            let length = match head[1] & 0x7f {
                126 => {
                    let mut length = [0; 2];
                    self.stream.read_exact(&mut length).unwrap();
                    u64::from(u16::from_be_bytes(length))
                }
                127 => {
                    let mut length = [0; 8];
                    self.stream.read_exact(&mut length).unwrap();
                    u64::from_be_bytes(length)
                }
                length => u64::from(length),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).unwrap();
            match head[0] & 0x0f {
                PING => self.write(PONG, &payload),
                PONG => {}
                CLOSE => panic!("{method}: the browser has closed the connection"),
                _ => {
                    message.extend(payload);
                    if head[0] & 0x80 != 0 {
                        return serde_json::from_slice(&message).unwrap();
                    }
                }
            }
        }
    }
}

/// Port and path, which the browser writes into its profile once it listens.
fn listening(profile: &Path) -> (u16, String) {
    let end = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.trim().split_once('\n') {
            return (port.parse().unwrap(), path.to_string());
        }
        assert!(Instant::now() < end, "the browser does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}
