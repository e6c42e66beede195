//! Settings for the tests of this folder.

use std::path::Path;

use crate::config::{SessionName, Sts, WebIdentity};

/// Roles by these files and, where wanted, by annotations.
pub(super) fn roles(map: Option<&Path>, limits: Option<&Path>, reads_annotations: bool) -> WebIdentity {
    WebIdentity {
        audiences: vec!["sts.amazonaws.com".to_owned()],
        reads_annotations,
        role_map: map.map(Path::to_owned),
        role_limits: limits.map(Path::to_owned),
        session_name: SessionName::Pod,
        sts: Sts::default(),
    }
}
