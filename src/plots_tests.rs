use super::*;

/// Checks that tags are balanced, attributes are quoted and no coordinate is other than a number.
fn check(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray > in {:?}", &rest[..start]);
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "bad tag {tag:?}");
        for value in tag.split('"').skip(1).step_by(2) {
            assert!(!value.contains("NaN") && !value.contains("inf"), "bad value in {tag:?}");
        }
        let name = tag.trim_end_matches('/').split([' ', '\n']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for (i, _) in svg.match_indices('&') {
        assert!(["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|e| svg[i..].starts_with(e)));
    }
}

fn curve() -> Vec<(f64, f64, Option<f64>)> {
    vec![
        (1.0, 0.693, Some(0.61)),
        (2.0, 0.402, Some(0.85)),
        (3.0, 0.311, Some(0.8725)),
        (4.0, 0.29, Some(0.87)),
    ]
}

fn change() -> Vec<(String, Vec<Option<f64>>)> {
    let row = |s: &str, f: fn(usize) -> Option<f64>| (s.to_string(), (0..6).map(f).collect());
    vec![
        row("emb_ln", |l| (l == 0).then_some(0.0021)),
        row("q", |l| Some(0.001 + 0.0011 * l as f64)),
        row("v", |l| Some(0.0004 * l as f64)),
        row("m2", |l| (l > 1).then_some(0.0123 - 0.001 * l as f64)),
        row("m3", |_| Some(0.005)),
        row("ln2", |l| Some(0.0031 + 0.0004 * l as f64)),
        row("pooler", |l| (l == 5).then_some(0.0066)),
    ]
}

#[test]
fn curve_shows_its_values() {
    let svg = learning_curve(&curve());
    check(&svg);
    for word in ["Training loss", "Accuracy on dev", "epoch", ">0.693<", ">0.311<", ">0.850<", ">0.870<"] {
        assert!(svg.contains(word), "{word}");
    }
    let lone = learning_curve(&[(1.0, 0.5, None)]);
    check(&lone);
    assert!(lone.contains(">0.500<") && !lone.contains("Accuracy"));
}

#[test]
fn awkward_curves_are_valid() {
    let nan = f64::NAN;
    check(&learning_curve(&[]));
    check(&learning_curve(&[(1.0, nan, Some(nan)), (2.0, f64::INFINITY, None)]));
    check(&learning_curve(&[(1.0, 0.0, Some(1.0)), (2.0, 0.0, Some(1.0))]));
    check(&learning_curve(&[(1.0, 1e300, None), (2.0, -1e300, None)]));
    check(&learning_curve(&[(1.0, 1e-300, None), (2.0, 2e-300, None)]));
    check(&learning_curve(&[(1.0, 3.0, None), (1.0, 2.0, None)]));
    let many: Vec<_> = (0..500).map(|i| (i as f64, 1.0 / (1.0 + i as f64), None)).collect();
    let svg = learning_curve(&many);
    check(&svg);
    assert!(svg.matches("class=\"fg small\"").count() <= 10);
}

#[test]
fn ticks_are_round_and_enclose() {
    let t = ticks((0.29, 0.693));
    assert_eq!(
        t.values.iter().map(|v| format!("{v:.*}", t.decimals)).collect::<Vec<_>>(),
        ["0.2", "0.4", "0.6", "0.8"]
    );
    for (low, high) in [
        (0.0, 1.0),
        (0.5, 0.5),
        (-3.0, 7.0),
        (0.0, 0.0),
        (0.991, 0.9925),
        (120.0, 4000.0),
        (1.0, 1.0 + 1e-12),
    ] {
        let t = ticks((low, high));
        assert!(t.values.len() >= 2 && t.values.len() <= 9, "{:?}", t.values);
        assert!(t.values[0] <= low + 1e-9 && *t.values.last().unwrap() >= high - 1e-9, "{:?}", t.values);
        let shown: Vec<_> = t.values.iter().map(|v| format!("{v:.*}", t.decimals)).collect();
        assert!(shown.windows(2).all(|w| w[0] != w[1]), "{shown:?}");
    }
}

#[test]
fn heat_map_shows_its_values() {
    let svg = bias_change(6, &change());
    check(&svg);
    for word in [
        "mean |b − b₀|",
        "layer",
        "term",
        ">emb_ln<",
        ">1.03<",
        ">0.50<",
        "numbers × 10⁻²",
        "m2 in layer 2: 1.030e-2",
    ] {
        assert!(svg.contains(word), "{word}\n{svg}");
    }
    assert_eq!(svg.matches("class=\"cell\"").count(), 1 + 6 + 6 + 4 + 6 + 6 + 1);
    assert_eq!(svg.matches("class=\"none\"").count(), 5 + 2 + 5);
    assert!(svg.contains("fill-opacity=\"1.000\"") && svg.contains("fill-opacity=\"0.060\""));
}

#[test]
fn awkward_heat_maps_are_valid() {
    check(&bias_change(0, &[]));
    check(&bias_change(2, &[]));
    check(&bias_change(1, &[("q".into(), vec![Some(0.0)])]));
    check(&bias_change(3, &[("q".into(), vec![Some(f64::NAN)]), ("v".into(), vec![])]));
    check(&bias_change(1, &[("q".into(), vec![Some(1e300)])]));
    let svg = bias_change(1, &[("<a & \"b\">\u{1}".into(), vec![Some(1.0)])]);
    check(&svg);
    assert!(svg.contains("&lt;a &amp; &quot;b&quot;&gt;\u{fffd}"));
}

fn size_points(points: &[(usize, f64, f64)]) -> Vec<SizePoint> {
    points.iter().map(|&(examples, score, deviation)| SizePoint { examples, score, deviation }).collect()
}

#[test]
fn sizes_show_their_scores() {
    let lines = [
        ("all biases".to_owned(), size_points(&[(50, 80.0, 2.0), (100, 88.0, 1.0), (400, 95.5, 0.2)])),
        ("head <only>".to_owned(), size_points(&[(50, 82.0, 0.0), (400, 90.0, 0.5)])),
    ];
    let svg = score_by_size("accuracy × 100", &lines);
    check(&svg);
    for word in [
        ">accuracy × 100<",
        ">training examples<",
        ">head &lt;only&gt;<",
        "all biases, 100 examples: 88.0 ± 1.0",
        ">50<",
        ">100<",
        ">400<",
        "class=\"line second\"",
    ] {
        assert!(svg.contains(word), "{word}\n{svg}");
    }
    // From 50 to 400 are three doublings, and 100 is one of them.
    let x = |n: &str| -> f64 {
        let (before, _) = svg.rsplit_once(&format!(">{n}</text>")).unwrap(); // the last: the y axis has a 100 too
        before.rsplit("<text x=\"").next().unwrap().split('"').next().unwrap().parse().unwrap()
    };
    assert!(((x("100") - x("50")) * 3.0 - (x("400") - x("50"))).abs() < 0.5);
}

#[test]
fn awkward_sizes_are_valid() {
    let one = |points: &[(usize, f64, f64)]| score_by_size("", &[("a".into(), size_points(points))]);
    for svg in [
        score_by_size("x", &[]),
        one(&[]),
        one(&[(0, 1.0, 0.0), (5, f64::NAN, 0.0), (6, 1.0, f64::INFINITY)]),
        one(&[(7, 1.0, 0.0)]),
        one(&[(1, 0.0, 0.0), (usize::MAX, 1e300, 1e300)]),
    ] {
        check(&svg);
    }
    let many: Vec<_> = (1..500).map(|n| (n, n as f64, 0.1)).collect();
    let svg = one(&many);
    check(&svg);
    assert!(svg.matches("class=\"dim\"").count() < 40, "numbers have room");
}

#[test]
fn powers_of_ten() {
    assert_eq!((power_of_ten(-3.0), power_of_ten(12.0)), ("10⁻³".to_string(), "10¹²".to_string()));
}
