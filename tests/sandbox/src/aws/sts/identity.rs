//! `GetCallerIdentity`.
//!
//! Owns: its answer. Must not know: how the caller was proved.

use super::{CALLER_IDENTITY, query};
use crate::aws::issued::Holder;
use crate::http::message::Reply;

/// Who holds the credentials that signed the request.
pub(super) fn reply(holder: &Holder) -> Reply {
    let session = &holder.session;
    let members = query::element("Arn", &session.arn())
        + &query::element("UserId", &session.user_id())
        + &query::element("Account", &session.account());
    query::result(CALLER_IDENTITY, &members)
}
