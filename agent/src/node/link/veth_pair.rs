//! A veth pair into a network namespace that lasts for one probe, set up as the VPC CNI sets up a pod.
//!
//! Owns: names and addresses of the pair, its creation and removal. Must not know: what is sent over it.
//!
//! As with the VPC CNI, the pod has one address as a single host, a default route through 169.254.1.1, and a
//! permanent neighbour entry for that; the host has a route to the pod's address. IPv6 has no gateway here:
//! its link-local address is not usable before duplicate address detection is over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::difference::Scope;
use super::netlink::{KernelError, address, is_gone, links, request, route};

/// The host's end.
const HOST_END: &str = "pod-id-probe0";
/// The pod's end.
const POD_END: &str = "pod-id-probe1";
/// The gateway that the VPC CNI gives pods. No link has this address; the neighbour entry points to the
/// host's end.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The pod's address: in the link-local block, next to the agent's own, so no real pod has it.
pub const POD_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 21);
/// The same for IPv6.
pub const POD_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x21);

/// Both ends get fixed MAC addresses: udev may change a random one a moment later. They are locally
/// administered, and no other link sees them.
const HOST_MAC: [u8; 6] = [0x02, 0x70, 0x6f, 0x64, 0x69, 0x00];
/// The MAC address of the pod's end.
const POD_MAC: [u8; 6] = [0x02, 0x70, 0x6f, 0x64, 0x69, 0x01];

/// Creates the pair, and moves one end into the network namespace that `namespace` is open on.
///
/// # Errors
/// [`KernelError`], if the IPv4 path cannot be set up.
pub async fn create(namespace: RawFd) -> Result<(), KernelError> {
    // Left by an earlier probe that was killed.
    remove().await?;
    let pair = LinkVeth::new(HOST_END, POD_END).address(HOST_MAC.to_vec()).build();
    request(async |kernel| kernel.link().add(pair.clone()).execute().await).await?;
    let (host, pod) = (link(HOST_END).await?, link(POD_END).await?);
    let moved = LinkUnspec::new_with_index(pod).address(POD_MAC.to_vec()).setns_by_fd(namespace).build();
    request(async |kernel| kernel.link().change(moved.clone()).execute().await).await?;
    request(async |kernel| bring_up(&kernel, host).await).await?;
    request(async |kernel| kernel.route().add(route(host, POD_IPV4.into())).execute().await).await?;
    // Without IPv6 the probe over IPv4 is still useful. The neighbour entry is added here, because the host's
    // end has no source address for neighbour discovery before duplicate address detection is over.
    let _ipv6 =
        request(async |kernel| kernel.route().add(route(host, POD_IPV6.into())).execute().await).await;
    let _ipv6 = add_neighbour(host, POD_IPV6.into(), POD_MAC).await;
    Ok(())
}

/// Gives the pod's end its address and its routes. Call it inside the namespace.
///
/// # Errors
/// [`KernelError`], if the IPv4 path cannot be set up.
pub async fn set_up_pod_end(ipv6_targets: &[Ipv6Addr]) -> Result<(), KernelError> {
    let pod = link(POD_END).await?;
    request(async |kernel| bring_up(&kernel, pod).await).await?;
    add_address(pod, POD_IPV4.into()).await?;
    add_neighbour(pod, GATEWAY.into(), HOST_MAC).await?;
    request(async |kernel| kernel.route().add(route(pod, GATEWAY.into())).execute().await).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(pod).build();
    request(async |kernel| kernel.route().add(default.clone()).execute().await).await?;
    if add_address(pod, POD_IPV6.into()).await.is_ok() {
        for target in ipv6_targets {
            add_neighbour(pod, (*target).into(), HOST_MAC).await?;
            request(async |kernel| kernel.route().add(route(pod, (*target).into())).execute().await).await?;
        }
    }
    Ok(())
}

/// Removes the pair. That there is none is not an error.
///
/// # Errors
/// [`KernelError`], if it still exists.
pub async fn remove() -> Result<(), KernelError> {
    match link(HOST_END).await {
        Ok(host) => is_gone(request(async |kernel| kernel.link().del(host).execute().await).await),
        Err(KernelError::LinkGone) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn link(name: &str) -> Result<u32, KernelError> {
    let links = request(async |kernel| links(&kernel).await).await?;
    links.iter().find(|link| link.name == name).map(|link| link.index).ok_or(KernelError::LinkGone)
}

async fn bring_up(kernel: &Handle, link: u32) -> Result<(), rtnetlink::Error> {
    kernel.link().change(LinkUnspec::new_with_index(link).up().build()).execute().await
}

async fn add_address(link: u32, ip: IpAddr) -> Result<(), KernelError> {
    request(async |kernel| {
        let mut request = kernel.address().add(link, ip, 0);
        *request.message_mut() = address(link, ip, Scope::Global);
        request.execute().await
    })
    .await
}

async fn add_neighbour(link: u32, ip: IpAddr, mac: [u8; 6]) -> Result<(), KernelError> {
    request(async |kernel| {
        let mut request =
            kernel.neighbours().add(link, ip).link_layer_address(&mac).state(NeighbourState::Permanent);
        let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        request.message_mut().header.family = family;
        request.execute().await
    })
    .await
}
