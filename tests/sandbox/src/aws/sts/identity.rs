//! `GetCallerIdentity`.
//!
//! Owns: its answer. Must not know: how the caller was proved.

use super::{CALLER_IDENTITY, query};
use crate::aws::issued::Holder;
use crate::http::message::Reply;

/// Who holds the credentials that signed the request.
pub(super) fn reply(holder: &Holder) -> Reply {
    let members = query::element("Arn", &holder.arn())
        + &query::element("UserId", &holder.user_id())
        + &query::element("Account", &holder.account());
    query::result(CALLER_IDENTITY, &members)
}
