//! Addresses as they are given on the command line.

use std::{fmt, net::ToSocketAddrs};

/// The members of the cluster at its first start: `1=HOST:PORT,2=HOST:PORT,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members(Vec<(u64, String)>);

impl Members {
    /// Reads the list; ids are from 1, and no id or address comes twice.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut members: Vec<(u64, String)> = Vec::new();
        for part in text.split(',') {
            let (id, address) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is not ID=HOST:PORT"))?;
            let id = id.parse().ok().filter(|&id| id > 0).ok_or_else(|| {
                format!("{id:?} is not the id of a node: a whole number from 1 is needed")
            })?;
            let address = parse_address(address)?;
            if address.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0_u16)) {
                return Err(format!(
                    "{address} is not where peers can reach node {id}: port 0 is any port"
                ));
            }
            if members.iter().any(|(other, _)| *other == id) {
                return Err(format!("node {id} is named twice"));
            }
            if members.iter().any(|(_, other)| *other == address) {
                return Err(format!("{address} is the address of two nodes"));
            }
            members.push((id, address));
        }
        if members.len() > MEMBERS_MAX {
            return Err(format!("{} members, the limit is {MEMBERS_MAX}", members.len()));
        }
        Ok(Self(members))
    }

    /// Where a member is reached.
    pub(crate) fn address(&self, id: u64) -> Option<&str> {
        self.0.iter().find(|(member, _)| *member == id).map(|(_, address)| address.as_str())
    }

    /// All of them, in the order given.
    pub(crate) fn list(&self) -> &[(u64, String)] {
        &self.0
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (id, address)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{id}={address}")?;
        }
        Ok(())
    }
}

/// Checks the form `HOST:PORT`; whether the host exists is found out when it is used.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let well_formed = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_one_word = if host.starts_with('[') {
            host.ends_with(']') && host.len() > 2
        } else {
            !host.is_empty() && !host.contains(|c: char| c == ':' || !c.is_ascii_graphic())
        };
        host_is_one_word && port.parse::<u16>().is_ok()
    });
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not an address: HOST:PORT is needed, such as 127.0.0.1:7001"))
    }
}

/// Whether only this machine can reach the address.
pub(crate) fn is_loopback(address: &str) -> bool {
    address.to_socket_addrs().is_ok_and(|mut resolved| resolved.all(|a| a.ip().is_loopback()))
}

/// What the library can put into a configuration.
const MEMBERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_as_it_was_given() {
        let text = "1=127.0.0.1:7101,2=node-2.example:7102,30=[::1]:7103";
        let members = Members::parse(text).unwrap();
        assert_eq!(members.to_string(), text);
        assert_eq!(members.address(30), Some("[::1]:7103"));
        assert_eq!(members.address(3), None);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        for (text, reason) in [
            ("", "\"\" is not ID=HOST:PORT"),
            ("1=a:1,", "\"\" is not ID=HOST:PORT"),
            ("a:1", "\"a:1\" is not ID=HOST:PORT"),
            ("0=a:1", "\"0\" is not the id of a node: a whole number from 1 is needed"),
            ("x=a:1", "\"x\" is not the id of a node: a whole number from 1 is needed"),
            ("1=a:0", "a:0 is not where peers can reach node 1: port 0 is any port"),
            ("1=a:00", "a:00 is not where peers can reach node 1: port 0 is any port"),
            ("1=a:1,1=b:1", "node 1 is named twice"),
            ("1=a:1,2=a:1", "a:1 is the address of two nodes"),
        ] {
            assert_eq!(Members::parse(text), Err(reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for text in ["", "a", ":1", "a:", "a:b", "a:65536", "a b:1", "::1:1", "[]:1", "a:-1"] {
            assert!(parse_address(text).is_err(), "{text:?}");
        }
        for text in ["a:0", "127.0.0.1:65535", "[::1]:1"] {
            assert_eq!(parse_address(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn only_loopback_is_loopback() {
        assert!(is_loopback("127.0.0.1:1") && is_loopback("[::1]:1"));
        assert!(!is_loopback("0.0.0.0:1") && !is_loopback("192.0.2.1:1"));
    }
}
