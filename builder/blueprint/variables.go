package blueprint

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// EnvPrefix starts the names of environment variables that set variables.
const EnvPrefix = "PICUBE_VAR_"

// mark is what sensitive values carry through expressions.
type mark string

const sensitive mark = "sensitive"

type variable struct {
	name       string
	kind       cty.Type
	fallback   cty.Value // NilVal: none
	sensitive  bool
	validation []*hcl.Block
	header     hcl.Range
	value      cty.Value
}

// readVariables gives every declared variable its value: the default, then
// the environment, the variable files in order, and -var, each over the last.
func (p *parser) readVariables(blocks hcl.Blocks) {
	p.vars = map[string]*variable{}
	for _, b := range blocks {
		name := b.Labels[0]
		if !hclsyntax.ValidIdentifier(name) {
			p.errorf(b.LabelRanges[0], "Invalid variable name", "%q isn't a name: use letters, digits, _ and -, and begin with a letter.", name)
			continue
		}
		if first, ok := p.vars[name]; ok {
			p.errorf(b.DefRange, "Duplicate variable", "The variable %q is declared already at %s.", name, first.header)
			continue
		}
		p.vars[name] = p.declare(b)
	}
	for _, name := range keys(p.vars) {
		if text, ok := p.Env[EnvPrefix+name]; ok {
			p.setText(p.vars[name], text, "the environment variable "+EnvPrefix+name)
		}
	}
	for _, file := range p.VarFiles {
		p.readVarFile(file)
	}
	for _, name := range keys(p.Vars) {
		v, ok := p.vars[name]
		if !ok {
			p.errorf(hcl.Range{Filename: p.path, Start: hcl.InitialPos, End: hcl.InitialPos}, "Unknown variable",
				"-var sets %q, but the blueprint has no such variable.%s", name, didYouMean(name, keys(p.vars)))
			continue
		}
		p.setText(v, p.Vars[name], "-var "+name)
	}

	values := map[string]cty.Value{}
	for _, name := range keys(p.vars) {
		values[name] = p.final(p.vars[name])
	}
	p.globals["var"] = cty.ObjectVal(values)
	for _, name := range keys(p.vars) {
		p.validate(p.vars[name])
	}
}

func (p *parser) declare(b *hcl.Block) *variable {
	v := &variable{name: b.Labels[0], kind: cty.DynamicPseudoType, header: b.DefRange}
	s := p.section(b, p.context(nil), []string{"type", "default", "sensitive", "description"},
		hcl.BlockHeaderSchema{Type: "validation"})
	if a, ok := s.attrs["type"]; ok {
		kind, diags := typeexpr.TypeConstraint(a.Expr)
		p.add(diags...)
		v.kind = kind
		if diags.HasErrors() {
			v.kind = cty.DynamicPseudoType
		}
	}
	var description string
	s.text("description", &description)
	s.boolean("sensitive", &v.sensitive)
	if a, ok := s.attrs["default"]; ok {
		fallback, diags := a.Expr.Value(nil) // a default is a constant
		p.add(diags...)
		switch converted, err := convert.Convert(fallback, v.kind); {
		case diags.HasErrors():
			v.value = cty.UnknownVal(v.kind)
		case err != nil:
			p.errorf(a.Expr.Range(), "Wrong default", "The default of the variable %q doesn't have its type: %s.", v.name, err)
			v.value = cty.UnknownVal(v.kind)
		default:
			v.fallback = converted
		}
	}
	v.validation = s.blocks
	return v
}

// setText takes a value from where there is only text: as it is for a string,
// as an expression for everything else.
func (p *parser) setText(v *variable, text, from string) {
	if v.kind == cty.String || v.kind == cty.DynamicPseudoType {
		v.value = cty.StringVal(text)
		return
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
	value := cty.DynamicVal
	if !diags.HasErrors() {
		value, diags = expr.Value(nil)
	}
	if diags.HasErrors() {
		p.badValue(v, from, "it isn't written as one")
		return
	}
	p.set(v, value, from)
}

func (p *parser) set(v *variable, value cty.Value, from string) {
	converted, err := convert.Convert(value, v.kind)
	if err != nil {
		p.badValue(v, from, err.Error())
		return
	}
	v.value = converted
}

// badValue points at the declaration: the line of the value may be secret.
func (p *parser) badValue(v *variable, from, why string) {
	p.errorf(v.header, "Wrong value for variable", "The value of %q from %s must be %s: %s.", v.name, from, friendly(v.kind), why)
	v.value = cty.UnknownVal(v.kind)
}

func (p *parser) readVarFile(file VarFile) {
	f := p.parseFile(file.Path, file.Src)
	if f == nil {
		return
	}
	attrs, diags := f.Body.JustAttributes()
	p.add(diags...)
	for _, name := range keys(attrs) {
		a := attrs[name]
		v, ok := p.vars[name]
		if !ok {
			p.errorf(a.NameRange, "Unknown variable", "The blueprint has no variable %q.%s", name, didYouMean(name, keys(p.vars)))
			continue
		}
		value, diags := a.Expr.Value(nil)
		if diags.HasErrors() {
			p.add(diags...)
			v.value = cty.UnknownVal(v.kind)
			continue
		}
		p.set(v, value, file.Path)
	}
}

func (p *parser) final(v *variable) cty.Value {
	value := v.value
	if value == cty.NilVal {
		value = v.fallback
	}
	if value == cty.NilVal {
		p.errorf(v.header, "Variable without a value",
			"The variable %q has no default, so it needs a value: -var %s=…, a -var-file, or the environment variable %s%s.",
			v.name, v.name, EnvPrefix, v.name)
		value = cty.UnknownVal(v.kind)
	}
	if v.sensitive {
		p.keepSecret(value)
		value = value.Mark(sensitive)
	}
	v.value = value
	return value
}

// keepSecret remembers the texts in a sensitive value, longest first, for scrub.
func (p *parser) keepSecret(v cty.Value) {
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		if v.IsKnown() && !v.IsNull() && v.Type() == cty.String && v.AsString() != "" {
			p.secrets = append(p.secrets, v.AsString())
		}
		return true, nil
	})
	slices.SortFunc(p.secrets, func(a, b string) int { return len(b) - len(a) })
}

// validate runs a variable's own rules.
func (p *parser) validate(v *variable) {
	for _, b := range v.validation {
		s := p.section(b, p.context(nil), []string{"condition!", "error_message!"})
		condition, _, ok := s.secretValue("condition", cty.Bool)
		var message string
		if !s.text("error_message", &message) || !ok || condition.True() {
			continue
		}
		p.errorf(v.header, "Invalid value for variable", "%s (%s at %s)", strings.TrimSpace(message), "the rule is", b.DefRange)
	}
}

// readLocals evaluates the local values, each after those that it needs.
func (p *parser) readLocals(blocks hcl.Blocks) {
	p.locals = map[string]*hcl.Attribute{}
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		p.add(diags...)
		for _, name := range keys(attrs) {
			if first, ok := p.locals[name]; ok {
				p.errorf(attrs[name].NameRange, "Duplicate local value", "The local value %q stands already at %s.", name, first.NameRange)
				continue
			}
			p.locals[name] = attrs[name]
		}
	}
	l := &localReader{parser: p, values: map[string]cty.Value{}, visiting: map[string]bool{}}
	for _, name := range keys(p.locals) {
		l.read(name)
	}
	p.globals["local"] = cty.ObjectVal(l.values)
}

type localReader struct {
	*parser
	values   map[string]cty.Value
	visiting map[string]bool
}

func (l *localReader) read(name string) {
	if _, done := l.values[name]; done {
		return
	}
	a := l.locals[name]
	if l.visiting[name] {
		l.errorf(a.NameRange, "Local value needs itself", "The local value %q can't be computed: it is made from itself.", name)
		l.values[name] = cty.DynamicVal
		return
	}
	l.visiting[name] = true
	for _, t := range a.Expr.Variables() {
		if len(t) < 2 || t.RootName() != "local" {
			continue
		}
		if attr, ok := t[1].(hcl.TraverseAttr); ok && l.locals[attr.Name] != nil {
			l.read(attr.Name)
		}
	}
	if _, done := l.values[name]; done {
		return // a circle, reported
	}
	l.globals["local"] = cty.ObjectVal(l.values)
	v, ok := l.evaluate(a.Expr, l.context(nil))
	if !ok {
		v = cty.DynamicVal
	}
	l.values[name] = v
}
