//! A snapshot for the tests of both pages.

use super::snapshot::{
    Agent, AskedSource, ClockState, ConnectionToAws, Counts, Holding, Identity, LastError, OwnCredentials,
    ReportedCondition, Snapshot,
};

/// A node on which most is well.
pub(crate) fn snapshot() -> Snapshot {
    let text = str::to_owned;
    Snapshot {
        agent: Agent {
            version: text("1.2.3"),
            cluster: text("prod"),
            region: Some(text("us-west-2")),
            region_from_instance: false,
            node: Some(text("ip-10-0-0-1")),
            started: Some(text("2026-11-26T06:48:00Z")),
            uptime_seconds: 3 * 3_600 + 12 * 60,
            ready: true,
        },
        conditions: vec![
            condition("running", true, true, ""),
            condition("own-credentials", true, true, ""),
            condition("listener-ipv6", false, false, "address in use"),
            condition("address-ipv6", true, true, "not applicable: IPv6 is switched off"),
        ],
        own_credentials: Some(OwnCredentials {
            source: Some(text("instance role node")),
            expires: Some(text("2026-11-26T16:00:00Z")),
        }),
        sources: vec![AskedSource { name: text("eks-auth"), calls_limit: 8, ..AskedSource::default() }],
        connections_to_aws: vec![ConnectionToAws {
            to: text("eks-auth.us-west-2.api.aws:443"),
            addresses: vec![text("192.0.2.1:443")],
        }],
        clock: ClockState { aws_time: text("confirmed"), offset_seconds: 0.0 },
        counts: Counts {
            verified_identities: 1,
            unverified_identities: 1,
            token_keys: 2,
            connections_open: 3,
            connections_limit: 16_384,
            descriptors_limit: Some(1_048_576),
            pods: Some(12),
        },
        identities: vec![served(), unverified(), refused()],
        identities_left_out: 0,
    }
}

pub(crate) fn condition(name: &str, met: bool, required: bool, reason: &str) -> ReportedCondition {
    ReportedCondition { name: name.to_owned(), met, required, reason: reason.to_owned() }
}

fn served() -> Identity {
    Identity {
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        pod: Some("cart-1".to_owned()),
        verified: true,
        source: "eks-auth".to_owned(),
        association: Some("a-1".to_owned()),
        role: Some("arn:aws:sts::111122223333:assumed-role/cart".to_owned()),
        valid_until: Some("2026-11-26T16:00:00Z".to_owned()),
        next_renewal: Some("2026-11-26T13:00:00Z".to_owned()),
        ..Identity::default()
    }
}

fn unverified() -> Identity {
    Identity {
        service_account: "search".to_owned(),
        pod: Some("search-1".to_owned()),
        verified: false,
        association: Some("a-2".to_owned()),
        role: Some("arn:aws:sts::111122223333:assumed-role/search".to_owned()),
        valid_until: Some("2026-11-26T11:00:00Z".to_owned()),
        next_renewal: None,
        failed_renewals: 1,
        last_error: Some(LastError {
            code: "timeout".to_owned(),
            message: "AWS cannot be reached".to_owned(),
            at: Some("2026-11-26T09:59:00Z".to_owned()),
        }),
        ..served()
    }
}

fn refused() -> Identity {
    Identity {
        service_account: "stranger".to_owned(),
        pod: Some("stranger-1".to_owned()),
        holding: Holding::Refused,
        association: None,
        role: None,
        valid_until: None,
        next_renewal: None,
        last_error: Some(LastError {
            code: "ResourceNotFoundException".to_owned(),
            message: "No association found.".to_owned(),
            at: Some("2026-11-26T09:58:00Z".to_owned()),
        }),
        ..served()
    }
}
