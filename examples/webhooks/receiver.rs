//! The other side: a server that takes webhooks, but not always, and keeps a book of what has come.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long it asks to be left alone.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What has come for one webhook.
#[derive(Default)]
pub(crate) struct Delivery {
    /// When it came, and what was answered.
    pub(crate) requests: Vec<(Instant, u16)>,
}

impl Delivery {
    pub(crate) fn answered(&self, status: u16) -> usize {
        self.requests.iter().filter(|(_, answer)| *answer == status).count()
    }

    /// Whether it came again although it was to wait.
    pub(crate) fn came_too_soon(&self) -> bool {
        self.requests
            .windows(2)
            .any(|two| two[0].1 == 429 && two[1].0.duration_since(two[0].0) < RETRY_AFTER)
    }
}

/// A host that takes webhooks until the program ends.
pub(crate) struct Receiver {
    address: SocketAddr,
    book: Arc<Mutex<HashMap<u32, Delivery>>>,
}

impl Receiver {
    pub(crate) fn start() -> io::Result<Receiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let receiver = Receiver { address: listener.local_addr()?, book: Arc::default() };
        let book = Arc::clone(&receiver.book);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let book = Arc::clone(&book);
                thread::spawn(move || {
                    if let Err(error) = serve(&connection, &book) {
                        eprintln!("webhooks: a request that cannot be read: {error}");
                    }
                });
            }
        });
        Ok(receiver)
    }

    /// As a webhook names it: `127.0.0.1:40001`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, HashMap<u32, Delivery>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one request and answers it. A webhook's number says how it fares the first time.
fn serve(mut connection: &TcpStream, book: &Mutex<HashMap<u32, Delivery>>) -> io::Result<()> {
    let came = Instant::now();
    let number = read(connection)?;
    let status = {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery = book.entry(number).or_default();
        let status = match (delivery.requests.is_empty(), number) {
            (true, number) if number.is_multiple_of(4) => 503,
            (true, number) if number.is_multiple_of(5) => 429,
            (_, number) if number.is_multiple_of(11) => 410,
            _ => 200,
        };
        delivery.requests.push((came, status));
        status
    };
    let wait = match status {
        429 => format!("Retry-After: {}\r\n", RETRY_AFTER.as_secs()),
        _ => String::new(),
    };
    write!(
        connection,
        "HTTP/1.1 {status} Answer\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// The webhook's number.
fn read(connection: &TcpStream) -> io::Result<u32> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut from = BufReader::new(connection);
    let (mut number, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            match line.trim_end() {
                "" => break,
                _ => continue,
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "webhook-number" => number = value.parse().ok(),
            "content-length" => length = value.parse().map_err(|_| wrong("a length"))?,
            _ => {}
        }
    }
    io::copy(&mut from.take(length), &mut io::sink())?;
    number.ok_or_else(|| wrong("no number"))
}
