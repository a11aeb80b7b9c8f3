//! A unit for systemd. See systemd.service(5) and systemd.kill(5).

use super::Service;

/// Where it belongs.
pub(super) fn place(service: &Service) -> String {
    let directory = if service.user { "~/.config/systemd/user" } else { "/etc/systemd/system" };
    format!("{directory}/{}.service", service.name)
}

pub(super) fn unit(service: &Service) -> String {
    let Service { name, db, stop_seconds, .. } = service;
    let (systemctl, journalctl, target) = match service.user {
        true => ("systemctl --user", "journalctl --user", "default.target"),
        false => ("systemctl", "journalctl", "multi-user.target"),
    };
    let place = place(service);
    let linger = if service.user {
        "#\n# It runs while you are logged in; always, after: loginctl enable-linger\n"
    } else {
        ""
    };
    let (mounts, machine) = match service.user {
        true => (String::new(), String::new()),
        // The database may be on a disk of its own.
        false => {
            let path = quoted(&db.replace('%', "%%"));
            (format!("RequiresMountsFor={path}\n"), of_the_machine(service))
        }
    };
    format!(
        "\
# The worker of {db}.
#
# Put this into {place}, then
#   {systemctl} daemon-reload
#   {systemctl} enable --now {name}.service
# Look with
#   {systemctl} status {name}.service
#   {journalctl} -u {name}.service
{linger}
[Unit]
Description=legwork: jobs of {description}
{mounts}# A worker that cannot live gets ten tries.
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=5
# 1: a job failed (--until-empty); 2: the command line is wrong.
RestartPreventExitStatus=1 2
# Stopped by INT or TERM, with jobs given back.
SuccessExitStatus=130 143
# TERM to the worker alone: it lets running jobs end, and then ends their commands itself.
KillMode=mixed
KillSignal=SIGTERM
# The worker's --grace and a little more.
TimeoutStopSec={stop_seconds}
# A command that takes too much memory must not take the worker with it.
OOMPolicy=continue
{machine}
[Install]
WantedBy={target}
",
        description = db.replace('%', "%%"),
        command = exec(&service.command),
    )
}

/// Modest: the commands of shell jobs run inside the same walls.
fn of_the_machine(service: &Service) -> String {
    let user = match service.owner {
        Some(owner) => format!("User={owner}\n"),
        None => "# As whom jobs run; root, if nobody is named.\n#User=\n".to_owned(),
    };
    format!("{user}# /usr and /boot are read-only for jobs.\nProtectSystem=true\n")
}

/// A command line: `%` begins a specifier and `$` a variable, except in the program's path, where
/// there are none of the latter.
fn exec(command: &[String]) -> String {
    let words = command.iter().enumerate().map(|(at, word)| {
        let word = word.replace('%', "%%");
        quoted(&if at == 0 { word } else { word.replace('$', "$$") })
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Between quotation marks, if it holds anything that could mean something.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+%$@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_worker_as_they_are() {
        let words =
            |words: &[&str]| exec(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            words(&["/usr/bin/legwork", "--db", "/a/b.db"]),
            "/usr/bin/legwork --db /a/b.db"
        );
        assert_eq!(words(&["/my apps/$5 100%/x"]), r#""/my apps/$5 100%%/x""#);
        assert_eq!(words(&["/x", "a b", "", ";"]), r#"/x "a b" "" ";""#);
        assert_eq!(
            words(&["/x", "$HOME", "50%", r#"say "\n""#]),
            r#"/x $$HOME 50%% "say \"\\n\"""#
        );
        assert_eq!(words(&["/x", "it's", "Grüße"]), "/x \"it's\" \"Grüße\"");
    }
}
