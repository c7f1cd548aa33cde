package plan

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Action is what a changed blueprint asks for at one card.
type Action string

// The actions, from the least to the most work.
const (
	Stay   Action = "stays"     // it may stay in its node as it is
	File   Action = "node.yaml" // only this file of its boot partition is another one
	Ask    Action = "unknown"   // nothing is known of how it was built
	Write  Action = "write"
	Remove Action = "remove" // the blueprint has no such node any more
)

var actions = []Action{Stay, File, Ask, Write, Remove}

// Changes are what a blueprint means for the cards that were built before.
type Changes struct {
	Cards []Change `json:"cards"` // in the blueprint's order, then those to remove
	// Notes are about more than one card.
	Notes []string `json:"notes,omitempty"`
}

// Change is what it means for one of them.
type Change struct {
	Node    string   `json:"node"`
	Cube    string   `json:"cube"`
	Action  Action   `json:"action"`
	Because []string `json:"because,omitempty"`
	Do      []string `json:"do,omitempty"` // commands
}

// Compare returns what has to be done where cards were made to be one thing
// and are to be another.
func Compare(was, is []Account) *Changes {
	c := &Changes{Cards: []Change{}}
	notes := map[string]bool{}
	for _, a := range is {
		i := slices.IndexFunc(was, func(w Account) bool { return w.Node == a.Node })
		if i < 0 {
			c.Cards = append(c.Cards, Change{Node: a.Node, Cube: a.Cube, Action: Write, Because: []string{"it is new"}})
			continue
		}
		change := compare(was[i], a)
		c.Cards = append(c.Cards, change)
		for _, note := range notesOn(was[i], a) {
			if !notes[note] {
				notes[note] = true
				c.Notes = append(c.Notes, note)
			}
		}
	}
	for _, w := range was {
		if slices.ContainsFunc(is, func(a Account) bool { return a.Node == w.Node }) {
			continue
		}
		gone := Change{Node: w.Node, Cube: w.Cube, Action: Remove, Because: []string{"the blueprint has no such node any more"}}
		if w.Role != RoleNode {
			gone.Do = []string{
				"kubectl drain " + w.Node + " --ignore-daemonsets --delete-emptydir-data",
				"kubectl delete node " + w.Node,
			}
		}
		c.Cards = append(c.Cards, gone)
	}
	return c
}

func compare(was, is Account) Change {
	c := Change{Node: is.Node, Cube: is.Cube, Action: Stay}
	if was.Settings == nil {
		c.Action, c.Because = Ask, []string{"an older picube-build made it, which kept no account"}
		return c
	}
	all := maps.Clone(was.Settings)
	maps.Copy(all, is.Settings)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		before, after := was.Settings[name], is.Settings[name]
		if before == after {
			continue
		}
		action, do := meaning(name, was, is)
		switch name {
		case "features": // what of them is used here stands by itself
			continue
		case "versions":
			if before == "" || after == "" { // not locked yet
				continue
			}
		}
		if slices.Index(actions, action) > slices.Index(actions, c.Action) {
			c.Action = action
		}
		c.Because = append(c.Because, difference(name, before, after))
		if do != "" {
			c.Do = append(c.Do, do)
		}
	}
	return c
}

// meaning returns what a changed setting asks for at the card, and a command
// that brings it to the running node.
func meaning(name string, was, is Account) (Action, string) {
	kind, _, _ := strings.Cut(name, " ")
	switch {
	case name == "nodes": // others are found by their certificates, and by their names over mDNS
		return Stay, ""
	case name == "versions":
		return Stay, "sudo apt update && sudo apt upgrade"
	case name == "packages":
		return Stay, apt(strings.Fields(was.Settings[name]), strings.Fields(is.Settings[name]))
	case name == "labels":
		return Stay, "kubectl label --overwrite node " + is.Node + " ..."
	case name == "taints":
		return Stay, "kubectl taint --overwrite node " + is.Node + " ..."
	case name == "kubernetes.manifests":
		return Stay, "kubectl apply -f ..."
	case kind == "display", kind == "fan", name == "status":
		if strings.Contains(was.Settings["features"], name) { // its daemon is there
			return File, ""
		}
	case slices.Contains(inNodeYAML, name):
		return File, ""
	}
	return Write, ""
}

// apt is the command that brings a running node from some packages to others.
func apt(was, is []string) string {
	command := "sudo apt update && sudo apt install"
	for _, name := range is {
		if !slices.Contains(was, name) {
			command += " " + name
		}
	}
	for _, name := range was {
		if !slices.Contains(is, name) {
			command += " " + name + "-" // apt-get(8): removes it
		}
	}
	return command
}

// inNodeYAML are the settings that lie nowhere else and are read at each start.
var inNodeYAML = []string{
	"network.dhcp", "network.dns", "kubernetes.backups", "kubernetes.clusters", "kubernetes.control_plane",
	"kubernetes.merge.lead", "kubernetes.merge.mode",
}

// shown is the longest value that is shown.
const shown = 40

func difference(name, before, after string) string {
	list := strings.Fields
	switch name {
	case "versions":
		return "newer versions are locked"
	case "nodes", "packages", "kubernetes.control_plane", "kubernetes.clusters", "kubernetes.images":
		var parts []string
		for _, s := range list(after) {
			if !slices.Contains(list(before), s) {
				parts = append(parts, "+"+s)
			}
		}
		for _, s := range list(before) {
			if !slices.Contains(list(after), s) {
				parts = append(parts, "-"+s)
			}
		}
		return name + ": " + strings.Join(parts, " ")
	}
	hidden := func(s string) bool { return len(s) > shown || strings.HasPrefix(s, "sha256:") }
	switch {
	case before == "" && hidden(after):
		return name + " is new"
	case after == "" && hidden(before):
		return name + " is gone"
	case hidden(before) || hidden(after):
		return name + " is another one"
	case before == "":
		return name + ": " + after
	case after == "":
		return name + ": no longer " + before
	}
	return name + ": " + before + " -> " + after
}

// notesOn are about what no card can change alone.
func notesOn(was, is Account) []string {
	if was.Settings == nil {
		return nil
	}
	var notes []string
	changed := func(name string) (before, after string, ok bool) {
		before, after = was.Settings[name], is.Settings[name]
		return before, after, before != after && before != "" && after != ""
	}
	if before, after, ok := changed("kubernetes.version"); ok {
		notes = append(notes, fmt.Sprintf("Kubernetes %s -> %s needs all cards of the cluster %s. Write the control plane's first: no node may be newer than it.", before, after, is.Cluster))
	}
	for _, name := range []string{"kubernetes.pod_subnet", "kubernetes.service_subnet", "network.prefix"} {
		if before, after, ok := changed(name); ok {
			notes = append(notes, fmt.Sprintf("%s %s -> %s needs all cards of the cluster %s, at once: on them it begins anew, with nothing in it. Save what you want to keep.", name, before, after, is.Cluster))
		}
	}
	if before, after, ok := changed("kubernetes.control_plane"); ok {
		notes = append(notes, fmt.Sprintf("The control plane of %s (%s) becomes another (%s): all its nodes must know, or some will look for it where it is not.", is.Cluster, before, after))
	}
	if before, after, ok := changed("cluster"); ok {
		notes = append(notes, fmt.Sprintf("The cluster %s becomes %s: that is another identity, and needs all cards.", before, after))
	}
	return notes
}

// print writes the changes for people.
func (c *Changes) print(b *bytes.Buffer) {
	fmt.Fprintln(b, "What that means for the cards that were built before")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  NODE\tCUBE\tCARD\tBECAUSE")
	file := false
	for _, card := range c.Cards {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", card.Node, card.Cube, card.Action, strings.Join(card.Because, "; "))
		file = file || card.Action == File
	}
	t.Flush()
	for _, card := range c.Cards {
		for _, do := range card.Do {
			fmt.Fprintf(b, "  %s: %s\n", card.Node, do)
		}
	}
	if file {
		fmt.Fprintln(b, "  node.yaml: build, and copy picube/node.yaml of the new image to the card's boot partition; the next start reads it.")
	}
	for _, note := range c.Notes {
		fmt.Fprintf(b, "  %s\n", note)
	}
	fmt.Fprintln(b)
}
