package builder

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/spdx"
	"github.com/picube/picube-build/firmware"
)

// sbomFile is the bill of materials' name in a cube's folder.
const sbomFile = "sbom.spdx.json"

// isThere reports whether the folder has the card's image and block map, made
// from the same and untouched since.
func (c card) isThere(folder *output.Folder) bool {
	img, ok := folder.Lookup(filepath.Base(c.path))
	if !ok || img.Inputs != c.inputSum {
		return false
	}
	_, err := os.Stat(filepath.Join(folder.Dir, c.node.Name+bmapSuffix))
	return err == nil
}

// make writes the card, and removes images of the node that are packed
// otherwise.
func (c card) make(ctx context.Context, folder *output.Folder) error {
	img, err := c.write(ctx, folder)
	if err != nil {
		return err
	}
	for _, f := range append(compress.Formats(), compress.None) {
		if f != c.compress {
			err = errors.Join(err, folder.Remove(c.node.Name+".img"+f.Suffix()))
		}
	}
	return errors.Join(err, folder.Record(img))
}

// listCard is what the manifest says of a card but for its image.
func listCard(c card) output.Card {
	n := c.node
	board, _ := firmware.Lookup(n.Board)
	return output.Card{
		Node: n.Name, Role: n.Role, Board: n.Board, Model: board.Model, Address: n.Address.String(),
		Root: c.root.key(), Boot: c.bootSum, Image: output.Image{Name: filepath.Base(c.path)}, Bmap: n.Name + bmapSuffix,
	}
}

// listings writes the files that say what lies in a cube's folder. Cards that
// this build did not make are listed as they were, if they are still there.
func (b *Builder) listings(ctx context.Context, folder *cubeFolder, roots map[string]*rootImage) error {
	defer b.Report.Step("listings")()
	cube := folder.cube
	made := make([]output.Card, len(folder.cards))
	for i, c := range folder.cards {
		made[i] = listCard(c)
	}
	l, err := lock.Read(b.Lock)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(l.Bytes())
	m := output.Manifest{
		Cube: cube.Spec.Name, Cluster: cube.Spec.Cluster, Blueprint: filepath.Base(b.Blueprint.Path), Builder: b.Version,
		Created: b.epoch.UTC().Format("2006-01-02T15:04:05Z"), Lock: hex.EncodeToString(sum[:]),
	}
	for _, s := range l.Suites {
		m.Suites = append(m.Suites, output.Suite{Name: s.Archive + " " + s.Name, Version: s.Version})
	}
	former, _ := output.ReadManifest(folder.Dir) // none or damaged: nothing to take over
	for _, n := range cube.Nodes {
		of := func(c output.Card) bool { return c.Node == n.Name }
		i, from := slices.IndexFunc(made, of), made
		if i < 0 {
			i, from = slices.IndexFunc(former.Cards, of), former.Cards
		}
		if i < 0 {
			continue
		}
		c := from[i]
		if img, ok := folder.Lookup(c.Name); ok {
			c.Image = img
			m.Cards = append(m.Cards, c)
		}
	}
	images := make([]output.Image, 0, len(m.Cards))
	for _, c := range m.Cards {
		images = append(images, c.Image)
	}
	slices.SortFunc(images, func(a, b output.Image) int { return strings.Compare(a.Name, b.Name) })
	manifest, err1 := m.Bytes()
	imager, err2 := m.Imager(folder.Dir)
	sbom, err3 := b.sbom(ctx, cube, l, m.Lock, roots)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	accounts, err := b.accounts(folder)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		accountsFile:        accounts,
		output.ManifestFile: manifest, output.SumsFile: output.Sums(images),
		output.ImagerFile(m.Cube): imager, sbomFile: sbom,
	}
	for name, text := range files {
		if text == nil {
			continue
		}
		if err := output.Replace(filepath.Join(folder.Dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

// sbom lists the packages of a cube's roots; nothing if this build has not seen
// all of them.
func (b *Builder) sbom(ctx context.Context, cube *plan.Cube, l *lock.Lock, lockSum string, roots map[string]*rootImage) ([]byte, error) {
	doc := spdx.Document{
		Name: cube.Spec.Name, Created: b.epoch, Tool: "picube-build-" + b.Version,
		Namespace: "https://github.com/picube/picube-build/spdx/" + cube.Spec.Name + "-" + lockSum,
	}
	// The public names, whatever mirror served this build.
	archives, err := archive.Debian(cube.Spec.Base.Suite, archive.HostMirrors(embed.FS{}))
	if err != nil {
		return nil, err
	}
	public := map[string]string{}
	for _, a := range archives {
		if len(a.URLs) > 0 {
			public[a.Name] = a.URLs[0] + "/"
		}
	}
	distro := "debian-" + cube.Spec.Base.Suite
	for _, s := range l.Suites {
		if s.Name == cube.Spec.Base.Suite && s.Version != "" {
			major, _, _ := strings.Cut(s.Version, ".")
			distro = "debian-" + major
		}
	}
	for _, r := range b.plan.Roots {
		if !slices.ContainsFunc(cube.Nodes, func(n *plan.Node) bool { return n.Root == r.Name }) {
			continue
		}
		root := roots[r.Name]
		if root == nil {
			return nil, nil
		}
		licences, err := root.licences(ctx, r.Packages)
		if err != nil {
			return nil, err
		}
		for _, p := range r.Packages {
			q := spdx.Package{
				Name: p.Name, Version: p.Version, Arch: p.Arch, Distro: distro, SHA256: p.SHA256, Licence: licences[p.Name],
			}
			if base := public[p.Archive]; base != "" {
				q.URL = base + p.Path
			}
			doc.Packages = append(doc.Packages, q)
		}
	}
	return doc.Bytes()
}

// licences returns the licences of packages by name, as far as the root says;
// read once and kept beside it.
func (r *rootImage) licences(ctx context.Context, packages []plan.Package) (map[string]string, error) {
	name := filepath.Join(filepath.Dir(r.Path), "licences.json")
	all := map[string]string{}
	if text, err := os.ReadFile(name); err == nil && json.Unmarshal(text, &all) == nil {
		return all, nil
	}
	f, err := os.Open(r.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	system, err := ext4.Open(f, r.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Path, err)
	}
	t, err := system.Tree(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Path, err)
	}
	all = map[string]string{}
	for _, p := range packages {
		text, err := t.ReadFile("/usr/share/doc/" + p.Name + "/copyright")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("package %s: copyright: %w", p.Name, err)
		}
		if l := spdx.Licence(string(text)); l != "" {
			all[p.Name] = l
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return all, output.Replace(name, text)
}
