// Package judge compares a tree that we configured with one that dpkg itself
// did, entry by entry, so that the fidelity of builder/maintscript is a
// measured fact.
//
// Every difference must stand in a list of accepted ones with its reason
// (accepted/*.txt), and every line of that list must still occur: Judge fails
// otherwise. Modification times are not compared; they do not tell how a
// system behaves, and dpkg's own depend on the clock.
//
// Compare is plain data. The test that makes the real trees with mmdebstrap
// needs the build tag judge:
//
//	go test -tags judge ./builder/judge
package judge

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Kind says in what two trees differ.
type Kind string

// The kinds of differences. The real tree is dpkg's.
const (
	Missing Kind = "missing" // only the real tree has the entry
	Extra   Kind = "extra"   // only ours has it
	Type    Kind = "type"
	Mode    Kind = "mode"
	Owner   Kind = "owner"
	Target  Kind = "target"
	Content Kind = "content"
	Device  Kind = "device"
	Xattrs  Kind = "xattrs"
	Links   Kind = "links" // hard links
	Order   Kind = "order" // of the parts of a file that is judged part by part
)

var kinds = []Kind{Missing, Extra, Type, Mode, Owner, Target, Content, Device, Xattrs, Links, Order}

// Difference is one way in which the two trees differ. In the databases of
// dpkg, apt and debconf the path names the part that differs:
// "/var/lib/dpkg/status#curl".
type Difference struct {
	Path   string
	Kind   Kind
	Detail string // both values, for people
}

func (d Difference) String() string {
	return fmt.Sprintf("%s %s: %s", d.Path, d.Kind, d.Detail)
}

// Reference is a real tree to compare others with.
type Reference struct {
	real indexed
	same map[pair]bool
}

// pair are two contents that were compared; a content never changes.
type pair struct{ real, ours tree.Content }

// NewReference returns a tree that others are compared with.
func NewReference(real *tree.Tree) *Reference {
	return &Reference{index(real), map[pair]bool{}}
}

// Compare returns how ours differs from the real tree, sorted by path, and how
// many entries were compared. Contents that two of ours share are read once.
func (r *Reference) Compare(ours *tree.Tree) ([]Difference, int, error) {
	c := comparison{Reference: r, ours: index(ours)}
	paths := maps.Clone(c.real.nodes)
	maps.Copy(paths, c.ours.nodes)
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if err := c.entry(p); err != nil {
			return nil, 0, err
		}
	}
	return c.differences, len(paths), nil
}

// indexed is a tree by path, with the first path of each hard-linked file.
type indexed struct {
	nodes map[string]*tree.Inode
	first map[*tree.Inode]string
}

func index(t *tree.Tree) indexed {
	in := indexed{map[string]*tree.Inode{}, map[*tree.Inode]string{}}
	for p, n := range t.All() {
		in.nodes[p] = n
		if _, seen := in.first[n]; !seen {
			in.first[n] = p
		}
	}
	return in
}

type comparison struct {
	*Reference
	ours        indexed
	differences []Difference
}

func (c *comparison) report(p string, k Kind, format string, args ...any) {
	c.differences = append(c.differences, Difference{p, k, fmt.Sprintf(format, args...)})
}

func (c *comparison) entry(p string) error {
	real, ours := c.real.nodes[p], c.ours.nodes[p]
	switch {
	case ours == nil:
		c.report(p, Missing, "%s", describe(real))
		return nil
	case real == nil:
		c.report(p, Extra, "%s", describe(ours))
		return nil
	case real.Type() != ours.Type():
		c.report(p, Type, "%s, really %s", describe(ours), describe(real))
		return nil
	}
	if real.Perm() != ours.Perm() && !real.IsSymlink() {
		c.report(p, Mode, "%04o, really %04o", ours.Perm(), real.Perm())
	}
	if real.UID != ours.UID || real.GID != ours.GID {
		c.report(p, Owner, "%d:%d, really %d:%d", ours.UID, ours.GID, real.UID, real.GID)
	}
	if real.Target != ours.Target && real.IsSymlink() {
		c.report(p, Target, "%s, really %s", ours.Target, real.Target)
	}
	if t := real.Type(); (t == tree.TypeChar || t == tree.TypeBlock) && (real.Major != ours.Major || real.Minor != ours.Minor) {
		c.report(p, Device, "%d:%d, really %d:%d", ours.Major, ours.Minor, real.Major, real.Minor)
	}
	if !maps.Equal(real.Xattrs, ours.Xattrs) {
		c.report(p, Xattrs, "%q, really %q", ours.Xattrs, real.Xattrs)
	}
	if !real.IsRegular() {
		return nil
	}
	if realFirst, oursFirst := c.real.first[real], c.ours.first[ours]; realFirst != oursFirst {
		c.report(p, Links, "%s, really %s", linkText(p, oursFirst), linkText(p, realFirst))
	}
	return c.content(p, real, ours)
}

func linkText(p, first string) string {
	if p == first {
		return "a file of its own"
	}
	return "a hard link to " + first
}

func (c *comparison) content(p string, real, ours *tree.Inode) error {
	key := pair{real.Content, ours.Content}
	same, known := c.same[key]
	if !known {
		var err error
		if same, err = sameContent(real, ours); err != nil {
			return fmt.Errorf("cannot compare %s: %w", p, err)
		}
		c.same[key] = same
	}
	if same {
		return nil
	}
	realData, err := head(real)
	if err != nil {
		return fmt.Errorf("cannot compare %s: %w", p, err)
	}
	oursData, err := head(ours)
	if err != nil {
		return fmt.Errorf("cannot compare %s: %w", p, err)
	}
	if read := recordReaders()[p]; read != nil {
		c.records(p, read, string(realData), string(oursData))
		return nil
	}
	c.report(p, Content, "%s", diffText(realData, oursData))
	return nil
}

// sameContent compares two files without holding them in memory.
func sameContent(a, b *tree.Inode) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	if a.Size() == 0 {
		return true, nil
	}
	const chunk = 256 << 10
	x, y := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); at < a.Size(); at += chunk {
		n := int(min(chunk, a.Size()-at))
		for _, part := range []struct {
			from tree.Content
			to   []byte
		}{{a.Content, x[:n]}, {b.Content, y[:n]}} {
			if got, err := part.from.ReadAt(part.to, at); got < n {
				return false, cmp.Or(err, io.ErrUnexpectedEOF)
			}
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// head returns as much of a file as a report can make use of.
func head(n *tree.Inode) ([]byte, error) {
	const most = 16 << 20
	b := make([]byte, min(n.Size(), most))
	if len(b) == 0 {
		return b, nil
	}
	if got, err := n.Content.ReadAt(b, 0); got < len(b) {
		return nil, err
	}
	return b, nil
}

const linkTo = "link to "

func describe(n *tree.Inode) string {
	names := map[uint32]string{
		tree.TypeRegular: "file", tree.TypeDir: "directory", tree.TypeSymlink: "link", tree.TypeChar: "character device",
		tree.TypeBlock: "block device", tree.TypeFifo: "fifo", tree.TypeSocket: "socket",
	}
	if n.IsSymlink() {
		return linkTo + n.Target
	}
	text := fmt.Sprintf("%s %04o %d:%d", names[n.Type()], n.Perm(), n.UID, n.GID)
	if n.IsRegular() {
		text += fmt.Sprintf(", %d bytes", n.Size())
	}
	return text
}

// Rule accepts the differences of some kinds at the paths that match.
type Rule struct {
	Pattern string // path.Match per component; "**" is any number of components, at the end at least one
	Target  string // of the link that is missing or too much; empty: whatever it is
	Kinds   []Kind
	Reason  string
	Place   string // "minimal.txt:3"
}

// ParseRules reads a list of accepted differences, one a line:
//
//	/etc/machine-id content,missing made anew on each card's first boot
//	/etc/x/*->target missing        links of any name to that target
//
// Empty lines and lines that start with "#" are skipped. The file's name goes
// into messages.
func ParseRules(file, text string) ([]Rule, error) {
	var rules []Rule
	number := 0
	for line := range strings.Lines(text) {
		number++
		place := fmt.Sprintf("%s:%d", file, number)
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("%s: cannot read it: want a path, kinds and a reason", place)
		}
		pattern, target, _ := strings.Cut(fields[0], "->")
		rule := Rule{Pattern: pattern, Target: target, Reason: strings.Join(fields[2:], " "), Place: place}
		if _, err := path.Match(rule.Pattern, ""); err != nil || !strings.HasPrefix(rule.Pattern, "/") {
			return nil, fmt.Errorf("%s: cannot use %q as a pattern of absolute paths", place, rule.Pattern)
		}
		for kind := range strings.SplitSeq(fields[1], ",") {
			if !slices.Contains(kinds, Kind(kind)) {
				return nil, fmt.Errorf("%s: cannot accept the unknown kind %q", place, kind)
			}
			rule.Kinds = append(rule.Kinds, Kind(kind))
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func (r Rule) accepts(d Difference) bool {
	return slices.Contains(r.Kinds, d.Kind) && matches(r.Pattern, d.Path) && (r.Target == "" || d.Detail == linkTo+r.Target)
}

func matches(pattern, p string) bool {
	return matchParts(strings.Split(pattern, "/"), strings.Split(p, "/"))
}

func matchParts(pattern, parts []string) bool {
	for i, part := range pattern {
		if part == "**" {
			if i == len(pattern)-1 {
				return len(parts) > 0
			}
			for skip := range parts {
				if matchParts(pattern[i+1:], parts[skip:]) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 {
			return false
		}
		if ok, _ := path.Match(part, parts[0]); !ok {
			return false
		}
		parts = parts[1:]
	}
	return len(parts) == 0
}

// Verdict is the outcome of one comparison.
type Verdict struct {
	Entries  int
	Accepted []Difference
	Rejected []Difference // in no rule
	Unused   []string     // rules, or kinds of a rule, that nothing needs any more
}

// Judge holds differences against the rules.
func Judge(differences []Difference, entries int, rules []Rule) Verdict {
	v := Verdict{Entries: entries}
	type use struct {
		rule int
		kind Kind
	}
	used := map[use]bool{}
	for _, d := range differences {
		accepted := false
		for i, rule := range rules {
			if rule.accepts(d) {
				used[use{i, d.Kind}] = true
				accepted = true
			}
		}
		if accepted {
			v.Accepted = append(v.Accepted, d)
		} else {
			v.Rejected = append(v.Rejected, d)
		}
	}
	for i, rule := range rules {
		for _, kind := range rule.Kinds {
			if !used[use{i, kind}] {
				v.Unused = append(v.Unused, fmt.Sprintf("%s: %s %s: no such difference any more", rule.Place, rule.Pattern, kind))
			}
		}
	}
	return v
}

// OK reports whether nothing is left to object to.
func (v Verdict) OK() bool { return len(v.Rejected) == 0 && len(v.Unused) == 0 }

// String returns the report: first what was not accepted, by kind of
// difference and path.
func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d entries compared, %d differences accepted, %d not accepted, %d accepted ones gone\n",
		v.Entries, len(v.Accepted), len(v.Rejected), len(v.Unused))
	for _, kind := range kinds {
		for _, d := range v.Rejected {
			if d.Kind == kind {
				fmt.Fprintln(&b, d)
			}
		}
	}
	for _, line := range v.Unused {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}
