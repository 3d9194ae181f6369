//! Who is connected to mosquitto, as far as it says: lines of its log at `$SYS/broker/log/N`. Pure.
//!
//! mosquitto has no list of connections, and its notes about them are the only thing that says when one begins and ends,
//! whatever the device does. They are heard only while the service is connected itself (mosquitto throws them away after
//! 20 seconds), which is why a service that has just connected has all devices come again (see [`super`]).

/// Where mosquitto says so.
pub(super) const LOG: &str = "$SYS/broker/log/N";

/// What a line says about a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// Its connection stands; an earlier one of the same client is over.
    Connected(&'a str),
    /// Its connection is over.
    Gone(&'a str),
}

/// What follows the client's name when its connection is over.
const ENDS: [&str; 4] = ["disconnected", "been disconnected by", "closed its connection", "has exceeded timeout"];

/// Reads a line; `None` if it says something else.
pub(super) fn seen(line: &str) -> Option<Seen<'_>> {
    // With log_timestamp there are digits before it.
    let line = match line.split_once(": ") {
        Some((stamp, rest)) if !stamp.is_empty() && stamp.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => line,
    };
    if let Some(rest) = line.strip_prefix("New client connected from ") {
        let (_, rest) = rest.split_once(" as ")?;
        let (client, rest) = rest.split_once(" (p")?;
        // A device's client identifier is its user name, which nobody else has.
        return rest.ends_with(&format!(", u'{client}').")).then_some(Seen::Connected(client));
    }
    if let Some(rest) = line.strip_prefix("Bad socket read/write on client ") {
        return rest.split_once(": ").map(|(client, _)| Seen::Gone(client));
    }
    let (client, rest) = line.strip_prefix("Client ")?.split_once(' ')?;
    ENDS.iter().any(|end| rest.starts_with(end)).then_some(Seen::Gone(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As mosquitto 2.0.11 writes them.
    #[test]
    fn lines_of_the_log_say_who_comes_and_goes() {
        for (line, expected) in [
            ("1795340659: New client connected from 127.0.0.1:56617 as A (p5, c1, k60, u'A').", Some(Seen::Connected("A"))),
            (
                "New client connected from ::1:1 as a_Thing_1 (p2, c0, k30, u'a_Thing_1').",
                Some(Seen::Connected("a_Thing_1")),
            ),
            ("1: New client connected from 127.0.0.1:1 as A (p5, c1, k60, u'B').", None),
            ("1: New client connected from 127.0.0.1:1 as A (p5, c1, k60).", None),
            ("1: New connection from 127.0.0.1:50863 on port 18883.", None),
            ("1: Client <unknown> disconnected, not authorised.", Some(Seen::Gone("<unknown>"))),
            ("1: Client A been disconnected by administrative action.", Some(Seen::Gone("A"))),
            ("1: Client A disconnected.", Some(Seen::Gone("A"))),
            ("1: Client A disconnected due to protocol error.", Some(Seen::Gone("A"))),
            ("1: Client A closed its connection.", Some(Seen::Gone("A"))),
            ("1: Client A has exceeded timeout, disconnecting.", Some(Seen::Gone("A"))),
            ("1: Bad socket read/write on client A: Invalid arguments provided.", Some(Seen::Gone("A"))),
            // The newer one has been told already, or will be.
            ("1: Client A already connected, closing old connection.", None),
            ("1: Client connection from 127.0.0.1 failed: error:0A000086:SSL routines.", None),
            ("", None),
            (": ", None),
        ] {
            assert_eq!(seen(line), expected, "{line}");
        }
    }
}
