//! The commands: ADD, DEL, CHECK, STATUS, GC, VERSION.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use keelson_sys::netns::Netns;
use serde_json::json;

use crate::ipam::{DEFAULT_FOLDER, IpamError, Ledger, Owner, Range};
use crate::spec::{self, Added, Failure, NetConf, code};
use crate::{hostports, link};

/// What the runtime says in environment variables.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
}

impl Environment {
    pub fn from_process() -> Environment {
        let var = |name| std::env::var(name).unwrap_or_default();
        Environment {
            command: var("CNI_COMMAND"),
            container_id: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            ifname: var("CNI_IFNAME"),
        }
    }

    fn owner(&self) -> Result<Owner, Failure> {
        let invalid = |text: String| Err(Failure::plain(code::INVALID_ENVIRONMENT, text));
        let id = &self.container_id;
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        {
            return invalid(format!("CNI_CONTAINERID {id:?} is not valid"));
        }
        let name = &self.ifname;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || !c.is_ascii();
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            return invalid(format!("CNI_IFNAME {name:?} is not an interface name"));
        }
        Ok(Owner { container: id.clone(), interface: name.clone() })
    }

    fn open_netns(&self) -> Result<Netns, Failure> {
        if self.netns.is_empty() {
            return Err(Failure::plain(code::INVALID_ENVIRONMENT, "CNI_NETNS is missing"));
        }
        let unknown = |e: &dyn std::error::Error| {
            Failure::new(code::UNKNOWN_CONTAINER, "the pod's network namespace cannot be opened", e)
        };
        let netns = Netns::open(&self.netns).map_err(|e| unknown(&e))?;
        let own = Netns::current().map_err(|e| unknown(&e))?;
        let same = netns.identity().and_then(|a| own.identity().map(|b| a == b)).map_err(|e| unknown(&e))?;
        if same {
            return Err(Failure::plain(
                code::INVALID_ENVIRONMENT,
                format!("CNI_NETNS {} is the host's own network namespace", self.netns),
            ));
        }
        Ok(netns)
    }
}

/// Points in a command after which it may be killed; tests stop there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Reserved,
    Linked,
    HostPorts,
    Unlinked,
    Unmapped,
    Released,
}

/// Runs a command and returns what to print. `reached` is told each step that is done.
pub fn run(env: &Environment, input: &str, reached: &dyn Fn(Step)) -> Result<String, Failure> {
    if env.command == "VERSION" {
        return Ok(json!({"cniVersion": spec::NEWEST, "supportedVersions": spec::VERSIONS}).to_string());
    }
    let conf = spec::parse(input)?;
    if conf.kind == spec::LOOPBACK {
        return loopback(env, &conf);
    }
    let context = Context::new(env, &conf)?;
    match env.command.as_str() {
        "ADD" => context.add(reached),
        "DEL" => context.delete(&env.owner()?, reached).map(|()| String::new()),
        "CHECK" => context.check(),
        "STATUS" => context.status(),
        "GC" => context.collect(),
        "" => Err(Failure::plain(code::INVALID_ENVIRONMENT, "CNI_COMMAND is missing")),
        other => {
            Err(Failure::plain(code::INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is not known")))
        }
    }
}

/// The other plugin that runtimes ask for: loopback up in ADD, looked at in CHECK, gone with its namespace.
fn loopback(env: &Environment, conf: &NetConf) -> Result<String, Failure> {
    let failed = link_failure("the pod's loopback interface");
    match env.command.as_str() {
        "ADD" => {
            env.owner()?;
            link::loopback_up(&env.open_netns()?, &env.ifname).map_err(failed)?;
            Ok(spec::loopback_result(&conf.cni_version, &env.ifname, &env.netns))
        }
        "CHECK" if !link::is_up(&env.open_netns()?, &env.ifname).map_err(failed)? => {
            Err(Failure::plain(code::CHECK_FAILED, "the pod's loopback interface is down"))
        }
        "CHECK" | "DEL" | "STATUS" | "GC" => Ok(String::new()),
        other => {
            Err(Failure::plain(code::INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is not known")))
        }
    }
}

struct Context<'a> {
    env: &'a Environment,
    conf: &'a NetConf,
    folder: PathBuf,
    ranges: Vec<Range>,
}

fn ipam_failure(error: IpamError) -> Failure {
    let code = match &error {
        IpamError::Exhausted { .. } => code::EXHAUSTED,
        IpamError::File { .. } => code::IO,
        IpamError::TooSmall(_) => code::INVALID_CONFIG,
        IpamError::NameTooLong => code::INVALID_ENVIRONMENT,
    };
    Failure::new(code, "address management failed", &error)
}
fn link_failure(what: &str) -> impl FnOnce(link::LinkError) -> Failure + '_ {
    move |e| Failure::new(code::NETWORK, what, &e)
}
fn ports_failure(error: hostports::HostPortError) -> Failure {
    let code = match &error {
        hostports::HostPortError::Taken(_) => code::HOST_PORT_TAKEN,
        hostports::HostPortError::Invalid { .. } => code::INVALID_CONFIG,
        _ => code::NETWORK,
    };
    Failure::new(code, "host ports cannot be mapped", &error)
}

impl<'a> Context<'a> {
    fn new(env: &'a Environment, conf: &'a NetConf) -> Result<Context<'a>, Failure> {
        let folder = conf.data_dir.clone().unwrap_or_else(|| DEFAULT_FOLDER.into());
        let mut ranges: Vec<Range> = Vec::new();
        for text in &conf.pod_cidrs {
            let (net, prefix) = spec::parse_cidr(text).ok_or_else(|| {
                Failure::plain(code::INVALID_CONFIG, format!("podCIDRs: {text:?} is not a network"))
            })?;
            let range = Range::new(net, prefix).map_err(ipam_failure)?;
            if ranges.iter().any(|r| r.gateway().is_ipv4() == range.gateway().is_ipv4()) {
                return Err(Failure::plain(code::INVALID_CONFIG, "podCIDRs: one network per address family"));
            }
            ranges.push(range);
        }
        Ok(Context { env, conf, folder: folder.into(), ranges })
    }

    fn ledger(&self) -> Result<Ledger, Failure> {
        Ledger::open(&self.folder, &self.conf.name).map_err(ipam_failure)
    }

    fn need_ranges(&self) -> Result<(), Failure> {
        if self.ranges.is_empty() {
            return Err(Failure::plain(code::INVALID_CONFIG, "podCIDRs: the node has no pod range yet"));
        }
        Ok(())
    }

    fn add(&self, reached: &dyn Fn(Step)) -> Result<String, Failure> {
        let owner = self.env.owner()?;
        self.need_ranges()?;
        let netns = self.env.open_netns()?;
        let mut ledger = self.ledger()?;
        let mut ips = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            match ledger.reserve(range, &owner, &self.env.netns) {
                Ok(ip) => ips.push((ip, range.gateway())),
                Err(e) => {
                    // A second family without room must not keep the first one's address.
                    let _ = ledger.release(&owner);
                    return Err(ipam_failure(e));
                }
            }
        }
        reached(Step::Reserved);
        let mappings = &self.conf.runtime_config.port_mappings;
        let addresses: Vec<IpAddr> = ips.iter().map(|(ip, _)| *ip).collect();
        // What an earlier owner's killed DEL left is gone before the address is used again.
        hostports::remove(&addresses).map_err(ports_failure)?;
        // Links take their own time and no other plugin's: the lock is not held over them.
        drop(ledger);
        let made = self.connect(&owner, &netns, &ips, reached);
        let made = made.and_then(|added| {
            if mappings.iter().any(hostports::on_loopback) {
                link::allow_loopback_source(&owner).map_err(link_failure("loopback host port"))?;
            }
            if !mappings.is_empty() {
                let _locked = self.ledger()?;
                hostports::add(mappings, &addresses).map_err(ports_failure)?;
            }
            reached(Step::HostPorts);
            Ok(added)
        });
        match made {
            Ok(added) => Ok(spec::result(&self.conf.cni_version, &added)),
            Err(failure) => {
                // The runtime sends DEL too; whatever cannot be undone now is undone then.
                let _ = self.delete(&owner, &|_| {});
                Err(failure)
            }
        }
    }

    fn connect(
        &self,
        owner: &Owner,
        netns: &Netns,
        ips: &[(IpAddr, IpAddr)],
        reached: &dyn Fn(Step),
    ) -> Result<Added, Failure> {
        let pair = link::create(owner, netns, ips, self.conf.mtu)
            .map_err(link_failure("the pod's interface cannot be made"))?;
        reached(Step::Linked);
        Ok(Added {
            host_interface: pair.host.name,
            host_mac: link::mac(&pair.host.mac),
            interface: pair.pod.name,
            mac: link::mac(&pair.pod.mac),
            netns: self.env.netns.clone(),
            mtu: pair.pod.mtu,
            ips: ips.to_vec(),
        })
    }

    /// Interface first, lease last: an address is free only when nothing uses it.
    fn delete(&self, owner: &Owner, reached: &dyn Fn(Step)) -> Result<(), Failure> {
        link::remove(owner).map_err(link_failure("the pod's interface cannot be removed"))?;
        reached(Step::Unlinked);
        let mut ledger = self.ledger()?;
        hostports::remove(&ledger.of(owner)).map_err(ports_failure)?;
        reached(Step::Unmapped);
        ledger.release(owner).map_err(ipam_failure)?;
        reached(Step::Released);
        Ok(())
    }

    fn check(&self) -> Result<String, Failure> {
        let owner = self.env.owner()?;
        let netns = self.env.open_netns()?;
        let failed = |text: String| Failure::plain(code::CHECK_FAILED, text);
        let Some(previous) = &self.conf.prev_result else {
            return Err(Failure::plain(code::INVALID_CONFIG, "CHECK needs prevResult"));
        };
        let leases = self.ledger()?.of(&owner);
        let mut ips = Vec::new();
        for ip in &previous.ips {
            let Some((ip, _)) = spec::parse_cidr(&ip.address) else {
                return Err(Failure::plain(code::DECODE, format!("prevResult: {:?}", ip.address)));
            };
            if !leases.contains(&ip) {
                return Err(failed(format!("address {ip} has no lease of this container")));
            }
            let range = self.ranges.iter().find(|r| r.contains(ip));
            let range = range.ok_or_else(|| failed(format!("address {ip} is in no range of this node")))?;
            ips.push((ip, range.gateway()));
        }
        link::check(&owner, &netns, &ips)
            .map_err(|e| Failure::new(code::CHECK_FAILED, "the pod's network is not as ADD left it", &e))?;
        Ok(String::new())
    }

    fn status(&self) -> Result<String, Failure> {
        let unavailable = |f: Failure| Failure { code: code::NOT_AVAILABLE, ..f };
        self.need_ranges().map_err(unavailable)?;
        self.ledger().map_err(unavailable)?;
        Ok(String::new())
    }

    /// Removes whatever belongs to no valid attachment.
    fn collect(&self) -> Result<String, Failure> {
        let Some(valid) = self.conf.valid_attachments.as_ref().or(self.conf.attachments.as_ref()) else {
            return Err(Failure::plain(code::INVALID_CONFIG, "GC needs cni.dev/valid-attachments"));
        };
        let valid: BTreeSet<Owner> = valid
            .iter()
            .map(|a| Owner { container: a.container_id.clone(), interface: a.ifname.clone() })
            .collect();
        let mut doomed: BTreeSet<Owner> = self.ledger()?.leases().iter().map(|l| l.owner.clone()).collect();
        let links = link::all().map_err(link_failure("interfaces cannot be listed"))?;
        doomed.extend(links.into_iter().map(|(_, owner)| owner));
        let mut first = None;
        for owner in doomed.difference(&valid) {
            if let Err(failure) = self.delete(owner, &|_| {}) {
                first.get_or_insert(failure);
            }
        }
        first.map_or(Ok(String::new()), Err)
    }
}
