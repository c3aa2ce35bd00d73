//! Tests run in a network namespace of their own, on a thread of their own.
use std::process::Command;

/// Runs `test` in a fresh network namespace with loopback up.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            crate::netns::unshare_net().expect("kernel tests need root");
            let mut rtnl = crate::rtnl::Rtnl::open().expect("rtnetlink");
            crate::rtnl::Batch::new().set_up_by_name("lo").send(&mut rtnl).expect("lo up");
            test()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Output of a tool run in the calling thread's namespace.
pub fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().expect("tool is installed");
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
