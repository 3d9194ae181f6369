//! The client of `tests/benchmark/api`: one request, signed (Signature Version 4), again and again on so many kept
//! connections. Not an SDK: those spend more on a request than the servers do.
//!
//!     signed-requests HOST:PORT PID CONNECTIONS SECONDS SERVICE METHOD TARGET BODY [NAME:VALUE…]
//!
//! Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. `{n}` in TARGET and BODY becomes a word that no other
//! request has; without it the request is signed every five seconds only. The first second is not measured. One line of JSON:
//! requests a second, their times from the first byte sent to the last one received, and the processor time of the server
//! PID and of this client. An answer that is not 2xx ends everything.

mod processes;

use belvedere_signature::Scope;
use belvedere_signature::canonical::{
    ALGORITHM, Request, canonical_request, sha256, signature, signing_key, string_to_sign,
};
use belvedere_signature::clock::civil;
use processes::processor_seconds;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WARM_UP: Duration = Duration::from_secs(1);
/// So long a signature is used: the service refuses one that comes again after 15 seconds.
const SIGNATURE: Duration = Duration::from_secs(5);
const REGION: &str = "us-east-1";
const UNIQUE: &str = "{n}";

/// What is asked for, before it is signed.
#[derive(Clone)]
struct Asked {
    address: String,
    access_key_id: String,
    secret: String,
    service: String,
    method: String,
    target: String,
    body: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Asked {
    /// The request's bytes, signed now.
    fn signed(&self, unique: &str) -> Outcome<Vec<u8>> {
        let (target, body) = (self.target.replace(UNIQUE, unique), self.body.replace(UNIQUE, unique));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let (y, mo, d, h, mi, s, _) = civil(now as i64);
        let date = format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z");
        let payload = sha256(body.as_bytes());
        let mut headers: Vec<(&str, &str)> =
            vec![("host", &self.address), ("x-amz-content-sha256", &payload), ("x-amz-date", &date)];
        headers.extend(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        headers.sort_unstable();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let signed: Vec<(&str, Vec<&str>)> = headers.iter().map(|(n, v)| (*n, vec![*v])).collect();
        let request = Request { method: &self.method, path, query, headers: &signed, payload: &payload };
        let scope = Scope { date: date[..8].to_owned(), region: REGION.to_owned(), service: self.service.clone() };
        let text = string_to_sign(&canonical_request(&request, &self.service), &date, &scope);
        let signature = signature(&signing_key(&self.secret, &scope), &text);
        let names = headers.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(";");
        let mut bytes = format!("{} {target} HTTP/1.1\r\ncontent-length: {}\r\n", self.method, body.len());
        for (name, value) in &headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str(&format!(
            "authorization: {ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n{body}",
            self.access_key_id
        ));
        Ok(bytes.into_bytes())
    }
}

/// A connection that is kept as long as the server keeps it.
struct Kept {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// How often it was made.
    made: usize,
}

impl Kept {
    fn ask(&mut self, request: &[u8], has_body: bool) -> Outcome<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.stream = Some(stream);
            self.made += 1;
        }
        let stream = self.stream.as_mut().ok_or("no connection")?;
        stream.write_all(request)?;
        self.buffer.clear();
        let mut piece = [0; 16 * 1024];
        let mut more = |buffer: &mut Vec<u8>| -> Outcome<()> {
            match stream.read(&mut piece)? {
                0 => Err("the server closed the connection within an answer".into()),
                count => Ok(buffer.extend_from_slice(&piece[..count])),
            }
        };
        let end = loop {
            match self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end,
                None => more(&mut self.buffer)?,
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let length: usize = match (has_body, header("content-length")) {
            (false, _) => 0,
            (true, Some(length)) => length.parse()?,
            (true, None) => return Err(format!("an answer without content-length: {head}").into()),
        };
        while self.buffer.len() < end + 4 + length {
            more(&mut self.buffer)?;
        }
        if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
        }
        if header("connection") == Some("close") || head.starts_with("http/1.0") {
            self.stream = None;
        }
        Ok(())
    }
}

/// Asks until `end`; times (microseconds) of what was begun after `begin`, and how many connections that took.
fn asking(asked: &Asked, number: usize, begin: Instant, end: Instant) -> Outcome<(Vec<u32>, usize)> {
    let mut kept = Kept { address: asked.address.clone(), stream: None, buffer: Vec::new(), made: 0 };
    let unique = asked.target.contains(UNIQUE) || asked.body.contains(UNIQUE);
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (mut request, mut signed) = (asked.signed("")?, Instant::now());
    let mut times = Vec::new();
    for count in 0_u64.. {
        if unique || signed.elapsed() > SIGNATURE {
            request = asked.signed(&format!("{run}-{number}-{count}"))?;
            signed = Instant::now();
        }
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        kept.ask(&request, asked.method != "HEAD")?;
        if begun >= begin {
            times.push(begun.elapsed().as_micros() as u32);
        }
    }
    Ok((times, kept.made))
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, pid, connections, seconds, service, method, target, body, headers @ ..] = arguments.as_slice() else {
        return Err("signed-requests HOST:PORT PID CONNECTIONS SECONDS SERVICE METHOD TARGET BODY [NAME:VALUE…]".into());
    };
    let headers: Option<Vec<(String, String)>> =
        headers.iter().map(|h| h.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))).collect();
    let asked = Asked {
        address: address.clone(),
        access_key_id: std::env::var("AWS_ACCESS_KEY_ID")?,
        secret: std::env::var("AWS_SECRET_ACCESS_KEY")?,
        service: service.clone(),
        method: method.clone(),
        target: target.clone(),
        body: body.clone(),
        headers: headers.ok_or("headers are NAME:VALUE")?,
    };
    let (server, connections): (u32, usize) = (pid.parse()?, connections.parse()?);
    let client = std::process::id();
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(seconds.parse()?);
    let workers: Vec<_> = (0..connections)
        .map(|number| {
            let asked = asked.clone();
            std::thread::spawn(move || asking(&asked, number, begin, end))
        })
        .collect();
    std::thread::sleep(begin.saturating_duration_since(Instant::now()));
    let (begun, before) = (Instant::now(), (processor_seconds(server)?, processor_seconds(client)?));
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let (wall, after) = (begun.elapsed().as_secs_f64(), (processor_seconds(server)?, processor_seconds(client)?));
    let (mut times, mut made) = (Vec::new(), 0);
    for worker in workers {
        let (of_one, connections) = worker.join().map_err(|_| "a thread panicked")??;
        times.extend(of_one);
        made += connections;
    }
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(0.0, |t| f64::from(*t) / 1000.0);
    println!(
        "{{\"count\":{},\"rate\":{:.1},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"server_cpu\":{:.3},\"client_cpu\":{:.3},\"connections\":{made}}}",
        times.len(),
        times.len() as f64 / wall,
        at(0.5),
        at(0.99),
        (after.0 - before.0) / wall,
        (after.1 - before.1) / wall,
    );
    Ok(())
}
