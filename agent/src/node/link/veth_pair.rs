//! A pair of links into a network namespace that lives for one probe, wired as the VPC CNI wires a pod.
//!
//! Owns: names and addresses of the pair, and its making and removal. Must not know: what is asked over it.
//!
//! As with the VPC CNI the pod has one address as a host of its own, a default route by 169.254.1.1, and a neighbour
//! entry for that which never expires; the host has a route to the address. IPv6 goes without the gateway: its
//! link-local address would have to be waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::difference::Scope;
use super::netlink::{KernelError, address, is_gone, links, request, route};

/// The host's end.
const HOST_END: &str = "pod-id-probe0";
/// The other.
const POD_END: &str = "pod-id-probe1";
/// What the VPC CNI gives pods as their gateway. Nobody has it; the neighbour entry leads to the host.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The pod's address: of the link-local block, beside the agent's own, so that no pod has it.
pub const POD_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 21);
/// The same of IPv6.
pub const POD_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x21);

/// Both ends have addresses that are given: those that the kernel drew, udev may change a moment later. They are of those
/// for local use, and no other link sees them.
const HOST_MAC: [u8; 6] = [0x02, 0x70, 0x6f, 0x64, 0x69, 0x00];
/// The other end's.
const POD_MAC: [u8; 6] = [0x02, 0x70, 0x6f, 0x64, 0x69, 0x01];

/// Makes the pair, and puts one end into the network namespace that `namespace` is open on.
///
/// # Errors
/// [`KernelError`], if the IPv4 way cannot be made.
pub async fn create(namespace: RawFd) -> Result<(), KernelError> {
    // Of a predecessor that was killed in between.
    remove().await?;
    let pair = LinkVeth::new(HOST_END, POD_END).address(HOST_MAC.to_vec()).build();
    request(async |kernel| kernel.link().add(pair.clone()).execute().await).await?;
    let (host, pod) = (link(HOST_END).await?, link(POD_END).await?);
    let moved = LinkUnspec::new_with_index(pod).address(POD_MAC.to_vec()).setns_by_fd(namespace).build();
    request(async |kernel| kernel.link().change(moved.clone()).execute().await).await?;
    request(async |kernel| bring_up(&kernel, host).await).await?;
    request(async |kernel| kernel.route().add(route(host, POD_IPV4.into())).execute().await).await?;
    // Without IPv6 the IPv4 way is still worth asking over. The neighbour is given, because the host's end has no
    // address to ask for it from before duplicate address detection is over.
    let _ipv6 =
        request(async |kernel| kernel.route().add(route(host, POD_IPV6.into())).execute().await).await;
    let _ipv6 = add_neighbour(host, POD_IPV6.into(), POD_MAC).await;
    Ok(())
}

/// Gives the pod's end its address and its routes. To be called inside the namespace.
///
/// # Errors
/// [`KernelError`], if the IPv4 way cannot be made.
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

/// Removes the pair; that there is none is no error.
///
/// # Errors
/// [`KernelError`], if it is there still.
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
