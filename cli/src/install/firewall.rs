//! firewalld and ufw, left on. Both end what they were not told of with a verdict that no rule of another table takes back, so
//! they are told in their own words: firewalld by files of ours in its folder, ufw by rules of its command line. All of it stands
//! in the ledger, and goes with `keelson reset`. Without either, or where `node.firewall` says `leave`, nothing is changed.
//!
//! What is let through: from other machines the ports of this one's role; from pods everything; to pods everything that finds its
//! way there. Packets that a Service's rules have given another destination pass firewalld by themselves; ufw passes those whose
//! destination is a pod.

use super::ledger::{Entry, Ledger};
use super::{etcd, machine, run, sealed, units};
use anyhow::{Context as _, Result, bail};
use keelson_base::cidr::Cidr;
use keelson_base::consts::VXLAN_PORT;
use keelson_daemon::config::{Config, Firewall as Choice};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// firewalld's unit and folder.
const UNIT: &str = "firewalld.service";
pub const FOLDER: &str = "/etc/firewalld";
/// Our service, our zone, and the policies towards this machine and towards pods.
const NAME: &str = "keelson";
const NODES: &str = "keelson-nodes";
const PODS: &str = "keelson-pods";
/// ufw's program and the file that says whether it is on.
const UFW: &str = "/usr/sbin/ufw";
const UFW_CONF: &str = "/etc/ufw/ufw.conf";

/// One that is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Firewalld,
    Ufw,
}

impl Firewall {
    pub fn name(self) -> &'static str {
        match self {
            Firewall::Firewalld => "firewalld",
            Firewall::Ufw => "ufw",
        }
    }
}

/// Those that are on.
pub fn active() -> Vec<Firewall> {
    let on = |text: String| text.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"));
    let ufw = Path::new(UFW).exists() && std::fs::read_to_string(UFW_CONF).is_ok_and(on);
    let firewalld = units::active(UNIT);
    [(firewalld, Firewall::Firewalld), (ufw, Firewall::Ufw)]
        .into_iter()
        .filter_map(|(on, one)| on.then_some(one))
        .collect()
}

/// What must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// First and last port, and the protocol.
    ports: Vec<(u16, u16, &'static str)>,
    pods: Cidr,
    /// This machine's, by which its link is known.
    address: IpAddr,
}

impl Needs {
    /// Of a control plane or a worker that is known by `address`.
    pub fn of(config: &Config, address: IpAddr, control_plane: bool) -> Needs {
        let mut ports = Vec::new();
        if control_plane {
            let port = config.api_server.bind.port();
            ports.push((port, port, "tcp"));
        }
        let kubelet = config.kubelet.bind.port();
        ports.push((kubelet, kubelet, "tcp"));
        if control_plane && config.etcd.as_ref().is_some_and(etcd::is_own) {
            ports.extend(etcd::PORTS.map(|(_, port)| (port, port, "tcp")));
        }
        // Not for Services, whose packets go on to pods: for the ports that tell load balancers of a node's endpoints.
        let (first, last) = config.network.node_ports;
        ports.push((first, last, "tcp"));
        ports.push((VXLAN_PORT, VXLAN_PORT, "udp"));
        Needs { ports, pods: config.network.pod_cidr, address }
    }

    fn ports(&self, between: char) -> Vec<String> {
        let text = |(first, last, protocol): &(u16, u16, &str)| match first == last {
            true => format!("{first}/{protocol}"),
            false => format!("{first}{between}{last}/{protocol}"),
        };
        self.ports.iter().map(text).collect()
    }

    /// What it is, for a sentence.
    pub fn text(&self) -> String {
        format!("{} and the pods' range {}", self.ports('-').join(", "), self.pods)
    }

    /// ufw's rules, as `ufw show added` shows them.
    fn rules(&self) -> Vec<String> {
        let mut rules: Vec<String> =
            self.ports(':').into_iter().map(|port| format!("allow {port}")).collect();
        rules.push(format!("allow from {}", self.pods));
        rules.push(format!("route allow from {}", self.pods));
        rules.push(format!("route allow to {}", self.pods));
        rules
    }

    /// The commands with which an administrator would do it.
    pub fn commands(&self, firewall: Firewall) -> String {
        match firewall {
            Firewall::Ufw => {
                self.rules().into_iter().map(|rule| format!("ufw {rule}")).collect::<Vec<_>>().join("; ")
            }
            Firewall::Firewalld => {
                let ports = self.ports('-').into_iter().map(|port| format!(" --add-port={port}"));
                format!(
                    "firewall-cmd --permanent{}; firewall-cmd --permanent --zone=trusted --add-source={}; firewall-cmd \
                     --permanent --new-policy={PODS}; firewall-cmd --permanent --policy={PODS} --add-ingress-zone=ANY \
                     --add-egress-zone=trusted --set-target=ACCEPT; firewall-cmd --reload",
                    ports.collect::<String>(),
                    self.pods
                )
            }
        }
    }
}

/// Tells each that is on what to let through.
pub fn open(ledger: &Ledger, needs: &Needs) -> Result<()> {
    for firewall in active() {
        let told = match firewall {
            Firewall::Firewalld => firewalld::open(ledger, needs),
            Firewall::Ufw => ufw::open(ledger, needs),
        };
        told.with_context(|| {
            format!(
                "{} cannot be told what to let through; --leave-firewall (or `node.firewall: leave` in the configuration) \
                 leaves it as it is",
                firewall.name()
            )
        })?;
    }
    Ok(())
}

/// What `init` or `join` would do, a line for each firewall that is on.
pub fn would(config: &Config, address: IpAddr, control_plane: bool) -> Vec<String> {
    let needs = Needs::of(config, address, control_plane);
    let line = |one: Firewall| match config.node.firewall {
        Choice::Open => format!("would make {} let through {}", one.name(), needs.text()),
        Choice::Leave => format!("would leave {} as it is", one.name()),
    };
    active().into_iter().map(line).collect()
}

/// What one that is on does not let through; empty when all is well.
pub fn lacks(firewall: Firewall, needs: &Needs) -> Result<Vec<String>> {
    match firewall {
        Firewall::Firewalld => firewalld::lacks(needs),
        Firewall::Ufw => ufw::lacks(needs),
    }
}

/// Takes a rule of ours out of ufw; where ufw is gone, its rules are too.
pub fn take_back(rule: &str) -> Result<()> {
    ufw::take_back(rule)
}

/// Makes firewalld read its folder again, where it runs.
pub fn reload() -> Result<()> {
    if !units::active(UNIT) {
        return Ok(());
    }
    run("firewall-cmd", &["--reload"]).map(drop)
}

mod firewalld {
    use super::*;

    /// Where the pods' range and this machine's link belong.
    #[derive(Debug, PartialEq, Eq)]
    pub struct Zones {
        /// The zone that has the pods' range as a source.
        pub pods: String,
        /// The zone of the link, or ANY where only the default zone takes it: a policy does not see that one by its name.
        pub link: String,
    }

    fn ask(arguments: &[&str]) -> Option<String> {
        let answer = run("firewall-cmd", arguments).ok()?;
        Some(answer.trim().to_owned()).filter(|text| !text.is_empty() && text != "no zone")
    }

    fn zones(needs: &Needs) -> Zones {
        let all = machine::addresses();
        let interface = all.iter().find(|one| one.address == needs.address).map(|one| one.interface.as_str());
        let link = interface.and_then(|name| ask(&[&format!("--get-zone-of-interface={name}")]));
        let pods = ask(&[&format!("--get-zone-of-source={}", needs.pods)]);
        Zones { pods: pods.unwrap_or_else(|| NAME.into()), link: link.unwrap_or_else(|| "ANY".into()) }
    }

    /// Our files, in the order they are written. A range that is a source of another zone stays there: it can have one alone.
    pub fn files(needs: &Needs, zones: &Zones) -> Vec<(PathBuf, String)> {
        let file = |path: String, kind: &str, attributes: &str, body: &str| {
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- Written by keelson; `keelson reset` removes it. -->\n\
                 <{kind}{attributes}>\n  <short>keelson</short>\n{body}</{kind}>\n"
            );
            (Path::new(FOLDER).join(path), text)
        };
        let port = |(first, last, protocol): &(u16, u16, &str)| {
            let port = if first == last { first.to_string() } else { format!("{first}-{last}") };
            format!("  <port port=\"{port}\" protocol=\"{protocol}\"/>\n")
        };
        let between = |from: &str, to: &str| {
            format!("  <ingress-zone name=\"{from}\"/>\n  <egress-zone name=\"{to}\"/>\n")
        };
        let ports: String = needs.ports.iter().map(port).collect();
        let mut files = vec![file(format!("services/{NAME}.xml"), "service", "", &ports)];
        if zones.pods == NAME {
            let source = format!("  <source address=\"{}\"/>\n", needs.pods);
            files.push(file(format!("zones/{NAME}.xml"), "zone", " target=\"ACCEPT\"", &source));
        }
        let nodes = format!("{}  <service name=\"{NAME}\"/>\n", between(&zones.link, "HOST"));
        files.push(file(format!("policies/{NODES}.xml"), "policy", " target=\"CONTINUE\"", &nodes));
        let pods = between("ANY", &zones.pods);
        files.push(file(format!("policies/{PODS}.xml"), "policy", " target=\"ACCEPT\"", &pods));
        files
    }

    pub fn open(ledger: &Ledger, needs: &Needs) -> Result<()> {
        let mut made = Vec::new();
        for (path, text) in files(needs, &zones(needs)) {
            sealed::check(&path)?;
            if ledger.write(&path, text.as_bytes(), 0o644)? {
                made.push(path);
            }
        }
        // In the files and not in force: a run before this one ended in between.
        if made.is_empty() && lacks(needs)?.is_empty() {
            return Ok(());
        }
        if let Err(error) = run("firewall-cmd", &["--check-config"]) {
            // Never left with files that it would not start with.
            for path in &made {
                Ledger::undo(&Entry::File { path: path.clone() })?;
            }
            return Err(error);
        }
        run("firewall-cmd", &["--reload"])?;
        let lacks = lacks(needs)?;
        if !lacks.is_empty() {
            bail!("after `firewall-cmd --reload` it still does not have {}", lacks.join(", "));
        }
        Ok(())
    }

    /// A line of what `firewall-cmd --info-…` prints, as words in order.
    pub fn words(info: &str, key: &str) -> Vec<String> {
        let line = info.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        let mut words: Vec<String> = line.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    }

    pub fn lacks(needs: &Needs) -> Result<Vec<String>> {
        let zones = zones(needs);
        let info = |option: &str| run("firewall-cmd", &[option]).unwrap_or_default();
        let (service, nodes, pods) = (
            info(&format!("--info-service={NAME}")),
            info(&format!("--info-policy={NODES}")),
            info(&format!("--info-policy={PODS}")),
        );
        let mut wanted = needs.ports('-');
        wanted.sort();
        let mut lacks = Vec::new();
        let open =
            words(&nodes, "services") == [NAME] && words(&nodes, "ingress-zones") == [zones.link.as_str()];
        if words(&service, "ports") != wanted || !open {
            lacks.push(format!("the policy {NODES}"));
        }
        let source = ask(&[&format!("--get-zone-of-source={}", needs.pods)]);
        if source.is_none() {
            lacks.push(format!("a zone for {}", needs.pods));
        }
        if words(&pods, "egress-zones") != [zones.pods.as_str()] || words(&pods, "target") != ["ACCEPT"] {
            lacks.push(format!("the policy {PODS}"));
        }
        Ok(lacks)
    }
}

mod ufw {
    use super::*;

    /// The rules that were added, without their comments.
    pub fn added(shown: &str) -> Vec<&str> {
        let rules = shown.lines().filter_map(|line| line.strip_prefix("ufw "));
        rules.map(|line| line.split_once(" comment ").map_or(line, |(rule, _)| rule)).collect()
    }

    pub fn lacks(needs: &Needs) -> Result<Vec<String>> {
        let shown = run(UFW, &["show", "added"])?;
        let there = added(&shown);
        Ok(needs.rules().into_iter().filter(|rule| !there.contains(&rule.as_str())).collect())
    }

    /// Adds what is missing: a rule that is there already is the administrator's, and stays theirs.
    pub fn open(ledger: &Ledger, needs: &Needs) -> Result<()> {
        for rule in lacks(needs)? {
            sealed::check(Path::new(UFW_CONF))?;
            ledger.note(Entry::UfwRule { rule: rule.clone() })?;
            let mut words: Vec<&str> = rule.split(' ').collect();
            words.extend(["comment", NAME]);
            run(UFW, &words)?;
        }
        Ok(())
    }

    /// `allow …` and `route allow …` are deleted by `delete allow …` and `route delete allow …`.
    pub fn deletion(rule: &str) -> Vec<&str> {
        let words: Vec<&str> = rule.split(' ').collect();
        match words.split_first() {
            Some((&"route", rest)) => [&["route", "delete"], rest].concat(),
            _ => [&["delete"], words.as_slice()].concat(),
        }
    }

    pub fn take_back(rule: &str) -> Result<()> {
        if !Path::new(UFW).exists() || !added(&run(UFW, &["show", "added"])?).contains(&rule) {
            return Ok(());
        }
        run(UFW, &deletion(rule)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        let mut chosen = crate::install::dropin::Chosen::default();
        chosen.set("etcd.endpoints", vec![etcd::own_endpoint()]);
        for key in ["caFile", "certFile", "keyFile"] {
            chosen.set(&format!("etcd.{key}"), "/a");
        }
        let config = keelson_daemon::config::load_with(None, &[("a", &chosen.text("a test"))]).unwrap();
        Needs::of(&config, "192.0.2.1".parse().unwrap(), true)
    }

    #[test]
    fn ufw_is_told_of_ports_and_of_pods() {
        let wanted = [
            "allow 6443/tcp",
            "allow 10250/tcp",
            "allow 2379/tcp",
            "allow 2380/tcp",
            "allow 30000:32767/tcp",
            "allow 8472/udp",
            "allow from 10.244.0.0/16",
            "route allow from 10.244.0.0/16",
            "route allow to 10.244.0.0/16",
        ];
        assert_eq!(needs().rules(), wanted);
        let shown = "Added user rules (see 'ufw status' for running firewall):\nufw allow 6443/tcp comment 'a comment'\n\
                     ufw route allow from 10.244.0.0/16\n";
        assert_eq!(ufw::added(shown), ["allow 6443/tcp", "route allow from 10.244.0.0/16"]);
        assert_eq!(ufw::deletion(wanted[0]), ["delete", "allow", "6443/tcp"]);
        assert_eq!(ufw::deletion(wanted[7]), ["route", "delete", "allow", "from", "10.244.0.0/16"]);
    }

    #[test]
    fn a_worker_needs_less() {
        let config = keelson_daemon::config::load(None).unwrap();
        let worker = Needs::of(&config, "192.0.2.1".parse().unwrap(), false);
        assert_eq!(worker.ports('-'), ["10250/tcp", "30000-32767/tcp", "8472/udp"]);
    }

    #[test]
    fn firewalld_gets_a_zone_for_pods_unless_they_have_one() {
        let zones = |pods: &str| firewalld::Zones { pods: pods.into(), link: "internal".into() };
        let names = |pods| -> Vec<String> {
            let files = firewalld::files(&needs(), &zones(pods));
            files.iter().map(|(path, _)| path.strip_prefix(FOLDER).unwrap().display().to_string()).collect()
        };
        let policies = ["policies/keelson-nodes.xml", "policies/keelson-pods.xml"];
        assert_eq!(names("keelson"), ["services/keelson.xml", "zones/keelson.xml", policies[0], policies[1]]);
        assert_eq!(names("trusted"), ["services/keelson.xml", policies[0], policies[1]]);
        let files = firewalld::files(&needs(), &zones("trusted"));
        assert!(files[0].1.contains("<port port=\"2380\" protocol=\"tcp\"/>"), "{}", files[0].1);
        assert!(files[1].1.contains("<ingress-zone name=\"internal\"/>"), "{}", files[1].1);
        assert!(files[2].1.contains("<egress-zone name=\"trusted\"/>"), "{}", files[2].1);
    }

    #[test]
    fn what_firewalld_says_is_read() {
        let info = "keelson-pods (active)\n  priority: -1\n  target: ACCEPT\n  egress-zones: keelson\n  services: \n";
        assert_eq!(firewalld::words(info, "egress-zones"), ["keelson"]);
        assert_eq!(firewalld::words(info, "services"), [""; 0]);
        assert_eq!(firewalld::words(info, "target"), ["ACCEPT"]);
    }
}
