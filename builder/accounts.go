package builder

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
)

// accountsFile holds, in each cube's folder, what its cards were made to be.
// It stays there when the images are deleted.
const accountsFile = "cards.json"

// accountsFormat is the number that files of this kind carry.
const accountsFormat = 1

type accountList struct {
	Format    int            `json:"format"`
	Blueprint string         `json:"blueprint"` // the file's name without folder
	Cards     []plan.Account `json:"cards"`
}

// seal tells secrets apart without telling them.
func (b *Builder) seal(cluster, secret string) string {
	mac := hmac.New(sha256.New, b.ids[cluster].Bytes(sha256.Size, "account"))
	mac.Write([]byte(secret))
	return fmt.Sprintf("%x", mac.Sum(nil)[:16])
}

// accounts returns the file for a folder: of cards that this build did not make
// it says what the last one did.
func (b *Builder) accounts(f *cubeFolder) ([]byte, error) {
	former := readAccounts(f.Dir)
	list := accountList{Format: accountsFormat, Blueprint: filepath.Base(b.Blueprint.Path), Cards: []plan.Account{}}
	for _, a := range b.plan.Accounts(b.seal) {
		if a.Cube != f.cube.Spec.Name {
			continue
		}
		made := slices.ContainsFunc(f.cards, func(c card) bool { return c.node.Name == a.Node })
		i := slices.IndexFunc(former.Cards, func(o plan.Account) bool { return o.Node == a.Node })
		switch {
		case made:
			list.Cards = append(list.Cards, a)
		case i >= 0:
			list.Cards = append(list.Cards, former.Cards[i])
		}
	}
	text, err := json.MarshalIndent(list, "", "  ")
	return append(text, '\n'), err
}

// readAccounts reads a folder's. What cannot be read is not known.
func readAccounts(dir string) accountList {
	var list accountList
	text, err := os.ReadFile(filepath.Join(dir, accountsFile))
	if err != nil || json.Unmarshal(text, &list) != nil || list.Format != accountsFormat {
		return accountList{}
	}
	return list
}

// changes compares the plan with the blueprint's cards that were built before;
// nil: there are none.
func (b *Builder) changes() (*plan.Changes, error) {
	dirs, err := filepath.Glob(filepath.Join(b.Out, "*"))
	if err != nil {
		return nil, err
	}
	var was []plan.Account
	for _, dir := range dirs {
		list, ours := readAccounts(dir), b.cubes[filepath.Base(dir)] != nil
		if ours || list.Blueprint == filepath.Base(b.Blueprint.Path) {
			was = append(was, list.Cards...)
		}
		if m, err := output.ReadManifest(dir); ours && err == nil && list.Format == 0 {
			for _, c := range m.Cards {
				was = append(was, plan.Account{Node: c.Node, Cube: m.Cube, Cluster: m.Cluster, Role: c.Role})
			}
		}
	}
	if len(was) == 0 {
		return nil, nil
	}
	return plan.Compare(was, b.plan.Accounts(b.seal)), nil
}
