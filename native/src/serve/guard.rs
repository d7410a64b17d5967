//! Who is let in: the host, the origin and the token of a request.

use std::{hint::black_box, net::IpAddr};

use anyhow::{Result, anyhow};
use oxhttp::model::{
    Body, Request, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN},
};

/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

/// A new token, as hexadecimal digits.
///
/// # Errors
/// If the system has no random numbers.
pub fn token() -> Result<String> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system has no random numbers for a token: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Why a request is not answered.
pub struct Refusal {
    /// The status of the response.
    pub status: StatusCode,
    /// Its text.
    pub what: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(status: StatusCode, what: impl Into<String>) -> Refusal {
        Refusal { status, what: what.into() }
    }

    /// A method that the path does not have.
    pub fn method() -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "files and replies are read with GET, requests are sent with POST")
    }

    /// A path that there is not.
    pub fn absent() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "there is no such file in the page")
    }

    /// Too much is asked at once.
    pub fn busy() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again")
    }
}

/// What requests are checked against.
pub struct Guard {
    token: Vec<u8>,
    /// Whether only this machine can connect.
    is_loopback: bool,
    hosts: Vec<String>,
}

impl Guard {
    /// The guard of a server that listens on an address, and is also reached by these names.
    pub fn new(token: &str, address: IpAddr, hosts: &[String]) -> Guard {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Guard { token: token.as_bytes().to_vec(), is_loopback: address.is_loopback(), hosts }
    }

    /// Checks that a request was sent to this machine, and by a page of this server if it was sent by a page. A link on another page may
    /// lead to a file of the page, and to nothing else.
    ///
    /// # Errors
    /// A foreign host or origin.
    pub fn check_origin(&self, request: &Request<Body>, is_page: bool) -> Result<(), Refusal> {
        let forbidden = |what: &str| Refusal::new(StatusCode::FORBIDDEN, what);
        let host = single(request.headers(), &HOST).ok_or_else(|| forbidden("a request needs one Host"))?;
        let is_asked = request.uri().authority().is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host));
        if !self.is_own(host) || !is_asked {
            return Err(forbidden("this server is not reached by that name: `moelab serve --host NAME` adds one"));
        }
        if request.headers().contains_key(ORIGIN) {
            let origin = single(request.headers(), &ORIGIN).unwrap_or_default();
            let of_origin = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            if !of_origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
                return Err(forbidden("pages of another origin are refused"));
            }
        }
        let fetch = |name: &'static str| single(request.headers(), &HeaderName::from_static(name));
        let is_link = is_page && fetch("sec-fetch-mode") == Some("navigate");
        match fetch("sec-fetch-site") {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if is_link => Ok(()),
            Some(_) => Err(forbidden("pages of another origin are refused")),
        }
    }

    /// Checks the token, in a time that does not depend on it.
    ///
    /// # Errors
    /// No token, or another one.
    pub fn check_token(&self, request: &Request<Body>) -> Result<(), Refusal> {
        let given =
            single(request.headers(), &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().as_bytes();
        let difference = given.iter().zip(&self.token).fold(0, |difference, (given, token)| difference | black_box(given ^ token));
        if given.len() == self.token.len() && difference == 0 {
            return Ok(());
        }
        let what = "the token is missing or is not that of this server: open the address that `moelab serve` has printed";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, what))
    }

    /// Whether a host is this machine, by any port: it may be forwarded from another one.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        match literal.parse::<IpAddr>() {
            // No name of the network leads to an address, so a foreign page cannot have it as its host.
            Ok(address) => address.is_loopback() || !self.is_loopback,
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { Some(value) }
}
