//! A property list for launchd. See launchd.plist(5).

use super::Service;

/// Where it belongs.
pub(super) fn place(service: &Service) -> String {
    let directory = if service.user { "~/Library/LaunchAgents" } else { "/Library/LaunchDaemons" };
    format!("{directory}/{}.plist", service.name)
}

pub(super) fn unit(service: &Service) -> String {
    let place = place(service);
    let domain = if service.user { "gui/$(id -u)" } else { "system" };
    let words: String = service
        .command
        .iter()
        .map(|word| format!("        <string>{}</string>\n", escaped(word)))
        .collect();
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- The worker of a legwork database. Put this into
       {place}
     then
       launchctl bootstrap {domain} {place}
     Look with
       launchctl print {domain}/{name} -->
<plist version=\"1.0\">
<dict>
    <key>Label</key>
    <string>{label}</string>
    <key>ProgramArguments</key>
    <array>
{words}    </array>
    <key>RunAtLoad</key>
    <true/>
    <!-- Started again unless it ended well. -->
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ThrottleInterval</key>
    <integer>10</integer>
    <!-- TERM, then so many seconds until KILL: the worker's grace and a little more. -->
    <key>ExitTimeOut</key>
    <integer>{stop_seconds}</integer>
    <key>StandardErrorPath</key>
    <string>{log}</string>
</dict>
</plist>
",
        // No name holds two hyphens, which would end the comment.
        name = service.name,
        label = escaped(&service.name),
        log = escaped(&format!("{}.log", service.db)),
        stop_seconds = service.stop_seconds,
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_worker_as_they_are() {
        assert_eq!(escaped(r#"a<b>&"c" &amp;"#), "a&lt;b&gt;&amp;&quot;c&quot; &amp;amp;");
    }

    #[test]
    fn no_path_ends_a_comment() {
        let service = Service {
            name: "a-b".to_owned(),
            user: true,
            command: vec!["/bin/legwork".to_owned(), "--db".to_owned()],
            db: "/a--b.db".to_owned(),
            stop_seconds: 45,
            owner: None,
        };
        let unit = unit(&service);
        let comments = unit.split("<!--").skip(1).map(|part| part.split("-->").next().unwrap());
        for comment in comments {
            assert!(!comment.contains("--"), "{comment}");
        }
        assert!(unit.contains("<string>/a--b.db.log</string>"), "{unit}");
    }
}
