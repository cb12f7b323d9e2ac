//! Builds tailscaled (with its command line inside) and the control plane by Go, once, into the cache.
//!
//! One build for both, with the same tags, so that they share nearly every package: 65 s on two idle cores from empty
//! caches (100 s with optimisation and debug information). The sources come from the Go module proxy, pinned by
//! `tests/genuine/tailscale/go.sum`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::secs;
use crate::genuine::cache;
use crate::{exec, programs};

/// What go.mod pins, for `tailscaled --version`.
const VERSION: &str = "1.98.10";
/// The oldest Go that builds it.
const GO_NEEDED: (u32, u32) = (1, 26);
/// Downloads and two minutes of compiling, on a machine that does other things too.
const LIMIT: Duration = secs(900);
/// The control plane's directory in the repository.
const SOURCE: &str = "tests/genuine/tailscale";

/// Features that no test looks at. What LocalAPI needs to know its caller, to tell health and to watch stays in.
const OMITTED: &str = "ace acme advertiseexitnode advertiseroutes appconnectors aws bird cachenetmap captiveportal \
    capture cliconndiag clientupdate cloud colorable completion completion_scripts conn25 dbus debugeventbus \
    debugportmapper desktop_sessions doctor drive gro hujsonconf identityfederation iptables kube linkspeed \
    linuxdnsfight listenrawdisco netlog networkmanager oauthkey outboundproxy portlist portmapper posture qrcodes \
    relayserver resolved serve ssh synology syspolicy systray taildrop tap tpm tundevstats useexitnode useproxy \
    usermetrics useroutes wakeonlan webbrowser webclient";

/// The directory with `tailscaled`, `tailscale` and `tailscale-control`; builds them if they are not in the cache.
pub fn prepare() -> Result<PathBuf> {
    let source = programs::repository().join(SOURCE);
    let files = ["go.mod", "go.sum", "main.go", "plane.go", "knobs.go"];
    let contents = files.map(|name| fs::read(source.join(name)));
    let contents = contents.into_iter().collect::<Result<Vec<_>, _>>();
    let contents = contents.with_context(|| format!("cannot read {}", source.display()))?;
    let arguments = arguments();
    let mut ingredients: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    ingredients.extend(arguments.iter().map(String::as_bytes));
    cache::once("tailscale", &ingredients, |dir| {
        go_there()?;
        build(&source, &arguments, dir)
    })
}

fn build(source: &Path, arguments: &[String], dir: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.args(arguments).arg(format!("-o={}/", dir.display()));
    go.args([".", "tailscale.com/cmd/tailscaled"]).current_dir(source);
    // No other toolchain is fetched, and no C compiler is asked for.
    go.envs([
        ("GOTOOLCHAIN", "local"),
        ("CGO_ENABLED", "0"),
        ("GOFLAGS", "-mod=readonly"),
    ]);
    exec::run_with(&mut go, &[], LIMIT)?.ok()?;
    symlink("tailscaled", dir.join("tailscale"))?;
    Ok(())
}

/// Neither optimised nor with debug information: a third less to compile, and still the same program.
fn arguments() -> Vec<String> {
    let tags: Vec<String> = OMITTED
        .split_whitespace()
        .map(|feature| format!("ts_omit_{feature}"))
        .collect();
    let stamp = "tailscale.com/version";
    vec![
        "build".to_owned(),
        "-trimpath".to_owned(),
        "-buildvcs=false".to_owned(),
        format!("-tags=ts_include_cli,{}", tags.join(",")),
        "-gcflags=all=-N -l -dwarf=false".to_owned(),
        format!("-ldflags=-s -w -X {stamp}.shortStamp={VERSION} -X {stamp}.longStamp={VERSION}-t0"),
    ]
}

fn go_there() -> Result<()> {
    let needs = format!("needs Go >= {}.{}", GO_NEEDED.0, GO_NEEDED.1);
    ensure!(exec::installed("go"), "{needs}: go is not on the path");
    let mut go = Command::new("go");
    let said = exec::run(go.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?.ok()?;
    let found = version_of(&said).with_context(|| format!("{needs}: go says it is {said:?}"))?;
    ensure!(found >= GO_NEEDED, "{needs}: found {said}");
    Ok(())
}

fn version_of(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("go")?.split('.');
    let minor: String = numbers
        .clone()
        .nth(1)?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((numbers.next()?.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions() {
        assert_eq!(version_of("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version_of("go1.27rc1"), Some((1, 27)));
        assert_eq!(version_of("devel"), None);
        assert!(version_of("go1.19.8").unwrap() < GO_NEEDED);
    }
}
