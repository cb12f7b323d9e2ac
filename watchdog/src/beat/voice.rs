//! Says a trouble once, and once that it is over: a beat a second must not be a log line a second.
//!
//! It keeps texts, no times: two troubles that alternate (one an address family) are said once each.

/// Texts remembered until all is well; more than these are said again.
const REMEMBERED: usize = 8;
/// So many beats in a row must be taken before a trouble is called over.
const FINE_AFTER: u32 = 5;

/// The log of one server, or of one file.
#[derive(Debug)]
pub struct Voice {
    about: String,
    said: Vec<String>,
    fine_in_a_row: u32,
}

impl Voice {
    /// `about` stands in the line that a trouble is over.
    pub fn new(about: &str) -> Self {
        Self {
            about: about.to_owned(),
            said: Vec::new(),
            fine_in_a_row: 0,
        }
    }

    /// What is wrong at present.
    pub fn trouble(&self) -> Option<&str> {
        self.said.last().map(String::as_str)
    }

    /// Says `text`, unless it was said since all was well.
    pub fn trouble_is(&mut self, text: &str) {
        self.fine_in_a_row = 0;
        if let Some(n) = self.said.iter().position(|said| said == text) {
            let last = self.said.remove(n);
            self.said.push(last);
            return;
        }
        if self.said.len() == REMEMBERED {
            self.said.remove(0);
        }
        self.said.push(text.to_owned());
        tracing::warn!("{text}");
    }

    /// It went well this time.
    pub fn fine(&mut self) {
        if self.said.is_empty() {
            return;
        }
        self.fine_in_a_row += 1;
        if self.fine_in_a_row == FINE_AFTER {
            self.said.clear();
            tracing::info!("{}: beats are taken again", self.about);
        }
    }

    /// It is well for good.
    pub fn settled(&mut self) {
        self.said.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_kept_until_five_beats_were_taken() {
        let mut voice = Voice::new("server");
        voice.trouble_is("over IPv4: refused");
        voice.trouble_is("over IPv6: no route");
        voice.trouble_is("over IPv4: refused");
        assert_eq!(voice.trouble(), Some("over IPv4: refused"));
        assert_eq!(voice.said.len(), 2, "each was said once");
        for _ in 0..4 {
            voice.fine();
        }
        assert!(voice.trouble().is_some());
        voice.fine();
        assert_eq!(voice.trouble(), None);
        for n in 0..100 {
            voice.trouble_is(&n.to_string());
        }
        assert_eq!(voice.said.len(), REMEMBERED);
    }
}
