package dpkg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
)

// Status is how far a package got, as dpkg(1) names it.
type Status int

// The order matters: dpkg compares states.
const (
	NotInstalled Status = iota
	ConfigFiles
	HalfInstalled
	Unpacked
	HalfConfigured
	TriggersAwaited
	TriggersPending
	Installed
)

var statusNames = []string{
	"not-installed", "config-files", "half-installed", "unpacked",
	"half-configured", "triggers-awaited", "triggers-pending", "installed",
}

func (s Status) String() string { return statusNames[s] }

// Conffile is a configuration file that dpkg keeps apart from others.
type Conffile struct {
	Path            string
	MD5             string // of the version last installed; "newconffile" before that
	Obsolete        bool
	RemoveOnUpgrade bool
}

// Package is one package of the database. Packages are known by name alone:
// foreign architectures are not supported.
type Package struct {
	Name          string
	Want          string // "install", "hold", "deinstall", "purge"
	Flag          string // "ok", "reinstreq"
	Status        Status
	Version       string
	ConfigVersion string // the version last configured
	Architecture  string
	MultiArch     string
	Conffiles     []Conffile
	Pending       []string // Triggers-Pending, the latest first
	Awaited       []string // Triggers-Awaited: names of packages

	control  control.Paragraph // what the archive's control file said
	relation map[string]relations
	text     string // the last stanza made, and of what
	textOf   string
}

// Field returns a field of the package's control file, "" if it has none.
func (p *Package) Field(name string) string { return p.control.Get(name) }

// Essential reports whether the package is marked so.
func (p *Package) Essential() bool { return p.Field("Essential") == "yes" }

// Info returns the base name of the package's files in /var/lib/dpkg/info.
func (p *Package) Info() string {
	if p.MultiArch == "same" {
		return p.Name + ":" + p.Architecture
	}
	return p.Name
}

// Fields in the order of dpkg's own table (lib/dpkg/parse.c); all others
// follow in the order of the control file.
var fieldOrder = []string{
	"Package", "Essential", "Protected", "Status", "Priority", "Section",
	"Installed-Size", "Origin", "Maintainer", "Bugs", "Architecture",
	"Multi-Arch", "Source", "Version", "Config-Version", "Replaces",
	"Provides", "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks",
	"Conflicts", "Enhances", "Conffiles", "Description", "Triggers-Pending",
	"Triggers-Awaited",
}

var relationFields = []string{
	"Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests",
	"Breaks", "Conflicts", "Enhances",
}

// Fields that dpkg knows but does not keep in its status.
var archiveFields = []string{"Filename", "Size", "MD5sum", "MSDOS-Filename"}

func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
}

// Fields returns the package as dpkg's status file tells it.
func (p *Package) Fields() control.Paragraph {
	var out control.Paragraph
	for _, name := range fieldOrder {
		value := p.Field(name)
		switch name {
		case "Essential", "Protected":
			if value != "yes" {
				continue
			}
		case "Multi-Arch":
			if value == "no" {
				continue
			}
		case "Status":
			value = p.Want + " " + p.Flag + " " + p.Status.String()
		case "Config-Version":
			value = p.ConfigVersion
			if p.Status == Installed || p.Status == NotInstalled || p.Status == TriggersPending {
				continue
			}
		case "Conffiles":
			value = p.conffiles()
		case "Triggers-Pending":
			value = strings.Join(p.Pending, " ")
		case "Triggers-Awaited":
			value = strings.Join(p.Awaited, " ")
		default:
			if contains(relationFields, name) {
				value = p.relations(name).String()
			}
		}
		if value != "" {
			out = append(out, control.Field{Name: name, Value: value})
		}
	}
	for _, f := range p.control {
		if !contains(fieldOrder, f.Name) && !contains(archiveFields, f.Name) {
			out = append(out, f)
		}
	}
	return out
}

// stanza returns the package's part of the status file. It is kept, since the
// file is written before every script.
func (p *Package) stanza() string {
	of := p.Want + p.Flag + p.Status.String() + p.ConfigVersion + p.conffiles() +
		strings.Join(p.Pending, " ") + "\n" + strings.Join(p.Awaited, " ")
	if p.text == "" || p.textOf != of {
		var b strings.Builder
		_ = p.Fields().Write(&b) // to memory
		p.text, p.textOf = b.String(), of
	}
	return p.text
}

func (p *Package) conffiles() string {
	var b strings.Builder
	for _, c := range p.Conffiles {
		b.WriteString("\n " + c.Path + " " + c.MD5)
		if c.Obsolete {
			b.WriteString(" obsolete")
		}
		if c.RemoveOnUpgrade {
			b.WriteString(" remove-on-upgrade")
		}
	}
	return b.String()
}

func (p *Package) relations(field string) relations {
	if r, ok := p.relation[field]; ok {
		return r
	}
	r := parseRelations(p.Field(field))
	if p.relation == nil {
		p.relation = map[string]relations{}
	}
	p.relation[field] = r
	return r
}

// newPackage reads an archive's control file.
func newPackage(text string) (*Package, error) {
	c, err := control.Parse(text)
	if err != nil {
		return nil, err
	}
	p := &Package{Want: "install", Flag: "ok", control: c}
	p.Name, p.Version = p.Field("Package"), p.Field("Version")
	p.Architecture, p.MultiArch = p.Field("Architecture"), p.Field("Multi-Arch")
	if !validName(p.Name) {
		return nil, fmt.Errorf("%q is not a package name", p.Name)
	}
	if p.Version == "" || p.Architecture == "" {
		return nil, fmt.Errorf("package %s: no Version or no Architecture", p.Name)
	}
	return p, nil
}

// validName guards paths that are made of names: Debian Policy 5.6.1, upper
// case and one letter allowed as dpkg does.
func validName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("-+._", rune(c))) {
			return false
		}
	}
	return true
}

// readPackage reads a stanza of the status file.
func readPackage(c control.Paragraph) (*Package, error) {
	p := &Package{}
	for _, f := range c {
		switch f.Name {
		case "Status":
			words := strings.Fields(f.Value)
			if len(words) != 3 || !slices.Contains(statusNames, words[2]) {
				return nil, fmt.Errorf("package %s: Status %q is not valid", c.Get("Package"), f.Value)
			}
			p.Want, p.Flag, p.Status = words[0], words[1], Status(slices.Index(statusNames, words[2]))
		case "Config-Version":
			p.ConfigVersion = f.Value
		case "Triggers-Pending":
			p.Pending = strings.Fields(f.Value)
		case "Triggers-Awaited":
			p.Awaited = strings.Fields(f.Value)
		case "Conffiles":
			for _, line := range control.Lines(f.Value) {
				words := strings.Fields(line)
				if len(words) < 2 {
					return nil, fmt.Errorf("package %s: conffile %q has no digest", c.Get("Package"), line)
				}
				p.Conffiles = append(p.Conffiles, Conffile{
					Path: words[0], MD5: words[1],
					Obsolete:        slices.Contains(words[2:], "obsolete"),
					RemoveOnUpgrade: slices.Contains(words[2:], "remove-on-upgrade"),
				})
			}
		default:
			p.control = append(p.control, f)
		}
	}
	p.Name, p.Version = p.Field("Package"), p.Field("Version")
	p.Architecture, p.MultiArch = p.Field("Architecture"), p.Field("Multi-Arch")
	if !validName(p.Name) {
		return nil, fmt.Errorf("%q is not a package name", p.Name)
	}
	if p.Status > ConfigFiles && p.Version == "" {
		return nil, fmt.Errorf("package %s: no Version", p.Name)
	}
	return p, nil
}
