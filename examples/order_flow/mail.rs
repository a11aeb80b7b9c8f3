//! Mail: a client, and a small server on the loopback interface that takes it.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lettre::message::Message;
use lettre::transport::smtp::SmtpTransport;

use crate::Fault;

/// A client for the server at `address`. No TLS: it never leaves the machine.
pub fn client(address: SocketAddr) -> SmtpTransport {
    SmtpTransport::builder_dangerous(address.ip().to_string())
        .port(address.port())
        .timeout(Some(Duration::from_secs(5)))
        .build()
}

pub fn confirmation(order: i64, customer: &str) -> Result<Message, Fault> {
    Ok(Message::builder()
        .from("The shop <shop@example.com>".parse()?)
        .to(customer.parse()?)
        .subject(format!("Your order {order}"))
        .body(format!("Thank you! Order {order} is on its way.\n"))?)
}

/// A mail server that greylists, as many do: the first mail to an address that it does not know
/// is refused with "try again later".
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    known: HashSet<String>,
    delivered: u64,
}

impl Server {
    /// Listens on a port of the system's choice, in threads that end with the process.
    pub fn start() -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = Server { address: listener.local_addr()?, seen: Arc::default() };
        let seen = Arc::clone(&server.seen);
        thread::Builder::new().name("mail-server".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // A client that hangs up in the middle has not delivered: nothing to do about it.
                thread::spawn(move || serve(&client, &seen));
            }
        })?;
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many mails it has taken.
    pub fn delivered(&self) -> u64 {
        lock(&self.seen).delivered
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One conversation: as much of SMTP (RFC 5321) as a client needs to deliver a mail.
fn serve(client: &TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let say = |reply: &str| (&*client).write_all(format!("{reply}\r\n").as_bytes());
    say("220 shop.example ready")?;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" | "MAIL" | "RSET" | "NOOP" => say("250 OK")?,
            "RCPT" if lock(seen).known.insert(line) => say("450 Greylisted, try again later")?,
            "RCPT" => say("250 OK")?,
            "DATA" => {
                say("354 Go on, end with a dot")?;
                take_body(&mut lines)?;
                lock(seen).delivered += 1;
                say("250 Delivered")?;
            }
            "QUIT" => return say("221 Bye"),
            _ => say("502 Not here")?,
        }
    }
    Ok(())
}

fn take_body(lines: &mut impl Iterator<Item = io::Result<String>>) -> io::Result<()> {
    for line in lines {
        if line? == "." {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
