package dpkg

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// interest is one line of triggers/File.
type interest struct {
	path, pkg string
	noawait   bool
}

// directive is one line of a package's triggers file (deb-triggers(5)).
type directive struct {
	verb, trigger string // verb is "interest" or "activate"
	noawait       bool
}

func parseDirectives(text string) ([]directive, error) {
	var out []directive
	for _, line := range lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		verb, mode, _ := strings.Cut(words[0], "-")
		if len(words) != 2 || verb != "interest" && verb != "activate" ||
			mode != "" && mode != "await" && mode != "noawait" || !validTrigger(words[1]) {
			return nil, fmt.Errorf("triggers: %q is not a directive", line)
		}
		out = append(out, directive{verb, words[1], mode == "noawait"})
	}
	return out, nil
}

// validTrigger guards the files that are named after explicit triggers.
func validTrigger(name string) bool {
	if strings.HasPrefix(name, "/") {
		return path.Clean(name) == name
	}
	return validName(name) && !strings.Contains(name, "_")
}

const triggersDir = Dir + "/triggers"

func (db *DB) fileInterests() ([]interest, error) {
	if db.interests != nil {
		return db.interests, nil
	}
	all, err := db.readInterests(triggersDir + "/File")
	db.interests = all
	return all, err
}

// readInterests reads triggers/File, whose lines are "path package", or an
// explicit trigger's file, whose lines are "package".
func (db *DB) readInterests(file string) ([]interest, error) {
	text, err := db.tree.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := []interest{}
	for _, line := range lines(string(text)) {
		where, pkg, ok := strings.Cut(line, " ")
		if !ok {
			where, pkg = "", line
		}
		pkg, mode, _ := strings.Cut(pkg, "/")
		name, _, _ := strings.Cut(pkg, ":")
		all = append(all, interest{where, name, mode == "noawait"})
	}
	return all, nil
}

func (db *DB) writeInterests(file string, all []interest) error {
	if len(all) == 0 {
		err := db.tree.Remove(file)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	var b strings.Builder
	for _, i := range all {
		if i.path != "" {
			b.WriteString(i.path + " ")
		}
		name := i.pkg
		if p := db.pkgs[name]; p != nil {
			name = p.Info()
		}
		b.WriteString(name)
		if i.noawait {
			b.WriteString("/noawait")
		}
		b.WriteByte('\n')
	}
	return db.tree.WriteFile(file, []byte(b.String()), 0o644)
}

// changeInterests replaces what a package is interested in.
func (db *DB) changeInterests(p *Package, old, all []directive) error {
	files, err := db.fileInterests()
	if err != nil {
		return err
	}
	files = slices.Clone(files)
	change := func(d directive, add bool) error {
		if d.verb != "interest" {
			return nil
		}
		if strings.HasPrefix(d.trigger, "/") {
			i := slices.IndexFunc(files, func(i interest) bool { return i.path == d.trigger && i.pkg == p.Name })
			switch {
			case i >= 0 && add:
				files[i].noawait = d.noawait
			case i >= 0:
				files = slices.Delete(files, i, i+1)
			case add:
				files = append(files, interest{d.trigger, p.Name, d.noawait})
			}
			return nil
		}
		file := triggersDir + "/" + d.trigger
		interested, err := db.readInterests(file)
		if err != nil {
			return err
		}
		interested = slices.DeleteFunc(interested, func(i interest) bool { return i.pkg == p.Name })
		if add {
			interested = append(interested, interest{"", p.Name, d.noawait})
		}
		return db.writeInterests(file, interested)
	}
	for _, d := range old {
		if err := change(d, false); err != nil {
			return err
		}
	}
	for _, d := range all {
		if err := change(d, true); err != nil {
			return err
		}
	}
	db.interests = files
	return db.writeInterests(triggersDir+"/File", files)
}

// activate notes that a trigger was pulled, by aw unless that is nil.
func (r *run) activate(trigger string, aw *Package) error {
	if !strings.HasPrefix(trigger, "/") {
		interested, err := r.db.readInterests(triggersDir + "/" + trigger)
		if err != nil {
			return err
		}
		for _, i := range interested {
			r.record(i, aw, trigger)
		}
		return nil
	}
	for p := trigger; p != "/"; p = path.Dir(p) {
		if err := r.activateFile(p, aw); err != nil {
			return err
		}
	}
	return nil
}

// activateFile is activate for one path without those above it.
func (r *run) activateFile(p string, aw *Package) error {
	all, err := r.db.fileInterests()
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.path == p {
			r.record(i, aw, p)
		}
	}
	return nil
}

func (r *run) record(i interest, aw *Package, trigger string) {
	pend := r.db.pkgs[i.pkg]
	if pend == nil || pend.Status < TriggersAwaited {
		return // it is yet to be configured, which does the same
	}
	if !slices.Contains(pend.Pending, trigger) {
		pend.Pending = append([]string{trigger}, pend.Pending...)
		pend.Status = pend.triggered()
	}
	if !r.noTriggers && !slices.Contains(r.deferred, pend) {
		r.deferred = append(r.deferred, pend)
	}
	if aw == nil || i.noawait || slices.Contains(aw.Awaited, pend.Name) {
		return
	}
	aw.Awaited = append(slices.Clone(aw.Awaited), pend.Name)
	if aw.Status > TriggersAwaited {
		aw.Status = TriggersAwaited
	}
}

// triggered returns the status of a package that is configured but for
// triggers.
func (p *Package) triggered() Status {
	switch {
	case len(p.Awaited) > 0:
		return TriggersAwaited
	case len(p.Pending) > 0:
		return TriggersPending
	}
	return Installed
}

// clearAwaiters tells those that wait for pend that its triggers are done.
func (r *run) clearAwaiters(pend *Package) {
	for _, aw := range r.db.Packages() {
		i := slices.Index(aw.Awaited, pend.Name)
		if i < 0 {
			continue
		}
		aw.Awaited = slices.Delete(slices.Clone(aw.Awaited), i, i+1)
		if aw.Status == TriggersAwaited {
			aw.Status = aw.triggered()
		}
	}
}

// activateDirectives pulls what a package's triggers file says is pulled
// whenever its state changes.
func (r *run) activateDirectives(p *Package, all []directive) error {
	for _, d := range all {
		if d.verb != "activate" {
			continue
		}
		aw := p
		if d.noawait {
			aw = nil
		}
		if err := r.activate(d.trigger, aw); err != nil {
			return err
		}
	}
	return nil
}

// Trigger does what dpkg-trigger(1) does: it notes the activation for dpkg to
// take in once the script is done. awaiter is "-" for none.
func (db *DB) Trigger(trigger, awaiter string) error {
	if !validTrigger(trigger) {
		return fmt.Errorf("invalid trigger name %q", trigger)
	}
	text, err := db.tree.ReadFile(triggersDir + "/Unincorp")
	if err != nil {
		return err
	}
	all := lines(string(text))
	i := slices.IndexFunc(all, func(line string) bool { return strings.Fields(line)[0] == trigger })
	switch {
	case i < 0:
		all = append(all, trigger+" "+awaiter)
	case !slices.Contains(strings.Fields(all[i])[1:], awaiter):
		all[i] = strings.Join(append([]string{trigger, awaiter}, strings.Fields(all[i])[1:]...), " ")
	}
	return db.tree.WriteFile(triggersDir+"/Unincorp", []byte(strings.Join(all, "\n")+"\n"), 0o644)
}

// incorporate takes in what scripts noted by Trigger.
func (r *run) incorporate() error {
	text, err := r.db.tree.ReadFile(triggersDir + "/Unincorp")
	if err != nil || len(text) == 0 {
		return err
	}
	for _, line := range lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		for _, name := range words[1:] {
			if err := r.activate(words[0], r.db.Package(name)); err != nil {
				return err
			}
		}
	}
	return r.db.tree.WriteFile(triggersDir+"/Unincorp", nil, 0o644)
}

// Leave notes a trigger that was pulled and is not to be processed now, at
// every installed package that is interested in it; nobody waits for it.
func (db *DB) Leave(trigger string) error {
	r := &run{db: db, noTriggers: true}
	return r.activate(trigger, nil)
}
