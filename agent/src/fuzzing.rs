//! The properties of all parsers of outside bytes, for `tests/fuzz`. Compiled by cargo-fuzz alone.
//!
//! Each takes the bytes that the fuzzer makes up, cuts them into the parts that its property wants, and
//! panics where the property does not hold.

use std::net::IpAddr;

use crate::association::properties as associations;
use crate::aws::own_identity::file::properties as credentials_file;
use crate::aws::own_identity::imds::properties as metadata;
use crate::cli::unknown_flags::properties as command_line;
use crate::config::{duration, no_proxy, url};
use crate::credentials::source::eks_auth::properties as eks_auth;
use crate::identity::claims::properties as claims;
use crate::identity::keys::document::properties as keys;
use crate::node::nft::properties as nft;
use crate::outgoing::proxy::properties as proxy;
use crate::server::door::head_end::properties as head_end;
use crate::server::pages::host::properties as host;
use crate::telemetry::logging::properties as log;
use crate::workload::token::properties as token;

/// The header with the bearer token.
pub fn token(data: &[u8]) {
    token::of_header(data);
}

/// The claims of a token: the payload, and the text of the middle part.
pub fn claims(data: &[u8]) {
    claims::of_payload(data);
    claims::of_middle_part(&String::from_utf8_lossy(data));
}

/// A document of keys.
pub fn keys(data: &[u8]) {
    keys::of_document(data);
}

/// A role map, and role limits.
pub fn roles(data: &[u8]) {
    associations::of_map(data);
    associations::of_limits(data);
}

/// The `Host` header, and the target of a request.
pub fn host(data: &[u8]) {
    host::of_header(data);
    host::of_target(&String::from_utf8_lossy(data));
}

/// A duration, and one of as many nanoseconds as the first bytes say.
pub fn duration(data: &[u8]) {
    duration::properties::of_text(&String::from_utf8_lossy(data));
    let nanoseconds = data.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    duration::properties::of_duration(std::time::Duration::from_nanos(nanoseconds >> 1));
}

/// A credentials file.
pub fn credentials_file(data: &[u8]) {
    credentials_file::of_content(data);
}

/// An answer of EKS Auth: a byte for its status, a line with its code, one with its request id, and the body.
pub fn eks_auth(data: &[u8]) {
    let (status, text) = status_and_text(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let (code, request_id, body) = (line(), line(), line().unwrap_or_default());
    eks_auth::of_answer(&eks_auth::Answer { status, code, request_id, body });
}

/// The answers of IMDS: a byte for their status, a line each with the session token, its life and the name of
/// the role, and the credentials.
pub fn metadata(data: &[u8]) {
    let (status, text) = status_and_text(data);
    let mut lines = text.splitn(4, '\n').map(str::to_owned);
    let mut line = || lines.next().unwrap_or_default();
    let (session, roles, credentials) = ((line(), line()), line(), line());
    metadata::of_answers(&metadata::Answers { status, session, roles, credentials });
}

/// What `nft` prints.
pub fn nft(data: &[u8]) {
    nft::of_listing(data);
    nft::of_error(data);
}

/// The bytes of a connection; the first two say where they are cut.
pub fn head_end(data: &[u8]) {
    let cuts: Vec<usize> = data.iter().take(2).map(|byte| usize::from(*byte)).collect();
    head_end::of_bytes(data.get(cuts.len()..).unwrap_or_default(), &cuts);
}

/// A URL, `NO_PROXY` with a host, and a range of addresses.
pub fn urls(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    url::properties::of_text(&text);
    let (variable, host) = text.split_once('\n').unwrap_or((&text, "example.com"));
    no_proxy::properties::of_variable(variable, host, 443);
    let bits = data.iter().take(16).fold(0, |bits: u128, byte| bits << 8 | u128::from(*byte));
    let of = |at: usize| data.get(at).copied().unwrap_or_default();
    no_proxy::properties::of_neighbours(bits, of(16) % 128, of(17));
    if let (Ok(network), Ok(host)) = (variable.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        no_proxy::properties::of_range(network.to_canonical(), of(0), host.to_canonical());
    }
}

/// The answer of a proxy.
pub fn proxy(data: &[u8]) {
    proxy::of_answer(data);
}

/// A field of the log.
pub fn log(data: &[u8]) {
    let number = data.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    log::of_fields(&String::from_utf8_lossy(data), number.cast_signed(), f64::from_bits(number));
}

/// A command line, a word a line.
pub fn command_line(data: &[u8]) {
    let words: Vec<String> = String::from_utf8_lossy(data).lines().map(str::to_owned).collect();
    command_line::of_line(&words);
}

/// Statuses that differ in what follows from them, and all others.
fn status_and_text(data: &[u8]) -> (u16, String) {
    const USUAL: [u16; 8] = [200, 400, 401, 403, 404, 429, 500, 503];
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let status = USUAL.get(usize::from(*first)).copied().unwrap_or(100 + u16::from(*first) * 2);
    (status, String::from_utf8_lossy(rest).into_owned())
}
