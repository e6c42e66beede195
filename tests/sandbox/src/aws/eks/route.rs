//! Which operation of EKS a request asks for.
//!
//! Owns: methods and paths of botocore's model. Must not know: what the operations do.

use crate::http::message::Received;

/// The operations there are. The real service has some eighty more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    ListClusters,
    DescribeCluster,
    DescribeUpdate,
    CreatePodIdentityAssociation,
    ListPodIdentityAssociations,
    DescribePodIdentityAssociation,
    UpdatePodIdentityAssociation,
    DeletePodIdentityAssociation,
    CreateAddon,
    ListAddons,
    DescribeAddon,
    UpdateAddon,
    DeleteAddon,
    DescribeAddonVersions,
    DescribeAddonConfiguration,
}

/// An operation, and what its path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) cluster: Option<String>,
    /// An association's id, an add-on's name or an update's id.
    pub(super) name: String,
}

impl Route {
    /// The route of a request, if there is one.
    pub(super) fn of(request: &Received) -> Option<Self> {
        use Operation as O;
        let segments: Vec<String> = request.path().trim_matches('/').split('/').map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (operation, cluster, name) = match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["clusters"]) => (O::ListClusters, None, ""),
            ("GET", ["clusters", cluster]) => (O::DescribeCluster, Some(*cluster), ""),
            ("GET", ["clusters", cluster, "updates", id]) => (O::DescribeUpdate, Some(*cluster), *id),
            ("GET", ["addons", "supported-versions"]) => (O::DescribeAddonVersions, None, ""),
            ("GET", ["addons", "configuration-schemas"]) => (O::DescribeAddonConfiguration, None, ""),
            (method, ["clusters", cluster, kind, rest @ ..]) => {
                let name = rest.first().copied().unwrap_or_default();
                (of_cluster(method, kind, rest)?, Some(*cluster), name)
            }
            _ => return None,
        };
        Some(Self { operation, cluster: cluster.map(str::to_owned), name: name.to_owned() })
    }
}

fn of_cluster(method: &str, kind: &str, rest: &[&str]) -> Option<Operation> {
    use Operation as O;
    Some(match (method, kind, rest) {
        ("POST", "pod-identity-associations", []) => O::CreatePodIdentityAssociation,
        ("GET", "pod-identity-associations", []) => O::ListPodIdentityAssociations,
        ("GET", "pod-identity-associations", [_]) => O::DescribePodIdentityAssociation,
        ("POST", "pod-identity-associations", [_]) => O::UpdatePodIdentityAssociation,
        ("DELETE", "pod-identity-associations", [_]) => O::DeletePodIdentityAssociation,
        ("POST", "addons", []) => O::CreateAddon,
        ("GET", "addons", []) => O::ListAddons,
        ("GET", "addons", [_]) => O::DescribeAddon,
        ("POST", "addons", [_, "update"]) => O::UpdateAddon,
        ("DELETE", "addons", [_]) => O::DeleteAddon,
        _ => return None,
    })
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;

    fn route(method: Method, path: &str) -> Option<Route> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        Route::of(&Received::new(request.into_parts().0, "".into()))
    }

    #[test]
    fn paths_are_told_apart_by_method_and_length() {
        let operation = |method, path: &str| route(method, path).map(|route| route.operation);
        for (method, path, expected) in [
            (Method::GET, "/clusters", Operation::ListClusters),
            (Method::GET, "/clusters/c", Operation::DescribeCluster),
            (Method::POST, "/clusters/c/pod-identity-associations", Operation::CreatePodIdentityAssociation),
            (Method::GET, "/clusters/c/pod-identity-associations", Operation::ListPodIdentityAssociations),
            (Method::POST, "/clusters/c/addons/a/update", Operation::UpdateAddon),
            (Method::DELETE, "/clusters/c/addons/a?preserve=true", Operation::DeleteAddon),
            (Method::GET, "/addons/supported-versions?addonName=a", Operation::DescribeAddonVersions),
        ] {
            assert_eq!(operation(method, path), Some(expected), "{path}");
        }
        for path in ["/", "/clusters/c/nodegroups", "/clusters/c/addons/a/b/c", "/addons"] {
            assert_eq!(operation(Method::GET, path), None, "{path}");
        }
        let named = route(Method::GET, "/clusters/my%20cluster/addons/vpc-cni").unwrap();
        assert_eq!((named.cluster.as_deref(), named.name.as_str()), (Some("my cluster"), "vpc-cni"));
    }
}
