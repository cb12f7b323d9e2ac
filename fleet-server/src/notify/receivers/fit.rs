//! A text into the room that a receiver has for it, with each character escaped as the receiver wants it.
//!
//! Room is counted in UTF-16 units after escaping: receivers count bytes, characters or units, before or after, and
//! do not all say which; this is never less than characters.

/// `text` in at most `limit` units. What does not fit ends in `…`, never in half an escape.
pub fn fit(text: &str, limit: usize, escape: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut used, mut cut) = (0, 0);
    for c in text.chars() {
        let before = out.len();
        escape(c, &mut out);
        used += units(&out[before..]);
        if used > limit {
            out.truncate(cut);
            out.push('…');
            return out;
        }
        // Room for the ellipsis has to be left up to here.
        if used < limit {
            cut = out.len();
        }
    }
    out
}

/// As it is.
pub fn plain(c: char, out: &mut String) {
    out.push(c);
}

/// As HTML's text wants it.
pub fn html(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_whole_and_what_does_not_is_cut() {
        assert_eq!(fit("abc", 3, plain), "abc");
        assert_eq!(fit("abcd", 3, plain), "ab…");
        assert_eq!(fit("a<b", 5, html), "a…");
        assert_eq!(fit("a<b", 6, html), "a&lt;b");
    }

    proptest! {
        #[test]
        fn never_over_the_limit_and_never_half_an_escape(text in "\\PC*", limit in 1_usize..60) {
            let fitted = fit(&text, limit, html);
            prop_assert!(units(&fitted) <= limit);
            let bare = fitted.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            prop_assert!(!bare.contains(['&', '<', '>']));
        }
    }
}
