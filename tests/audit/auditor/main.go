// What an auditor would write with the public libraries: verifies a checkpoint and proofs of its log.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

type inclusion struct {
	Position uint64   `json:"position"`
	Leaf     []byte   `json:"leaf"`
	Hashes   [][]byte `json:"hashes"`
}

type consistency struct {
	From    uint64   `json:"from"`
	To      uint64   `json:"to"`
	Hashes  [][]byte `json:"hashes"`
	OldRoot []byte   `json:"old_root"`
	NewRoot []byte   `json:"new_root"`
}

type evidence struct {
	Vkeys       []string      `json:"vkeys"`
	Note        string        `json:"note"`
	Size        uint64        `json:"size"`
	Root        []byte        `json:"root"`
	Inclusion   []inclusion   `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
}

func main() {
	var it evidence
	if err := json.NewDecoder(os.Stdin).Decode(&it); err != nil {
		fail("evidence", err)
	}
	var verifiers []note.Verifier
	for _, vkey := range it.Vkeys {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			fail("vkey", err)
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open([]byte(it.Note), note.VerifierList(verifiers...))
	if err != nil {
		fail("note", err)
	}
	for _, each := range it.Inclusion {
		leaf := rfc6962.DefaultHasher.HashLeaf(each.Leaf)
		err := proof.VerifyInclusion(rfc6962.DefaultHasher, each.Position, it.Size, leaf, each.Hashes, it.Root)
		if err != nil {
			fail(fmt.Sprintf("inclusion of %d", each.Position), err)
		}
	}
	for _, each := range it.Consistency {
		err := proof.VerifyConsistency(rfc6962.DefaultHasher, each.From, each.To, each.Hashes, each.OldRoot, each.NewRoot)
		if err != nil {
			fail(fmt.Sprintf("consistency of %d and %d", each.From, each.To), err)
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"text": opened.Text, "signatures": len(opened.Sigs)})
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}
