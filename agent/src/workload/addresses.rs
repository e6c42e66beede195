//! Addresses that AWS has fixed for every node.
//!
//! Owns: these constants. Must not know: who listens on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where SDKs look for the agent: 169.254.170.23 and fd00:ec2::23. No other address of a node is allowed for
/// plain HTTP by all of them (docs/design/facts.md#sdk-addresses).
pub const WELL_KNOWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Where the instance metadata is, the node's credentials among it (EC2 user guide, "Instance metadata
/// service").
pub const INSTANCE_METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
