//! Java objects of the git-client plugin and of JGit: what requests bring and what answers are made of.

use crate::callables::{Call, Reply, Throw};
use crate::object::{Graph, NodeId, Value, View, sc};

use super::uri::Uri;

/// The name of an object of a repository: 40 hexadecimal digits.
pub(super) type Sha = String;

/// Whether a text is the name of an object in full.
pub(super) fn is_sha(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A method's arguments.
pub(super) struct Args<'g> {
    what: &'g str,
    values: Vec<Option<View<'g>>>,
}

impl<'g> Args<'g> {
    pub(super) fn new(what: &'g str, values: Vec<Option<View<'g>>>) -> Args<'g> {
        Args { what, values }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    fn wrong(&self, at: usize, wanted: &str) -> Throw {
        Throw::io(format!("argument {} of {} is not {wanted}", at + 1, self.what))
    }

    /// An argument, which may be null.
    pub(super) fn any(&self, at: usize) -> Result<Option<View<'g>>, Throw> {
        self.values.get(at).copied().ok_or_else(|| self.wrong(at, "there"))
    }

    pub(super) fn view(&self, at: usize) -> Result<View<'g>, Throw> {
        self.any(at)?.ok_or_else(|| self.wrong(at, "there: it is null"))
    }

    pub(super) fn string(&self, at: usize) -> Result<String, Throw> {
        self.text(at)?.ok_or_else(|| self.wrong(at, "a string: it is null"))
    }

    /// A string or null.
    pub(super) fn text(&self, at: usize) -> Result<Option<String>, Throw> {
        Ok(self.any(at)?.map(View::as_str).transpose()?.map(Into::into))
    }

    pub(super) fn bool(&self, at: usize) -> Result<bool, Throw> {
        match self.view(at)?.unboxed() {
            Some(Value::Bool(value)) => Ok(value),
            _ => Err(self.wrong(at, "a boolean")),
        }
    }

    /// An `Integer`, or null.
    pub(super) fn int(&self, at: usize) -> Result<Option<i32>, Throw> {
        let Some(view) = self.any(at)? else { return Ok(None) };
        match view.unboxed() {
            Some(Value::Int(value)) => Ok(Some(value)),
            _ => Err(self.wrong(at, "an int")),
        }
    }

    /// The name of an object: an `ObjectId`, or a string.
    pub(super) fn revision(&self, at: usize) -> Result<String, Throw> {
        let view = self.view(at)?;
        if view.is("java.lang.String") { self.string(at) } else { object_id(view) }
    }

    pub(super) fn uri(&self, at: usize) -> Result<Uri, Throw> {
        Ok(Uri::read(self.view(at)?)?)
    }

    /// A collection or an array of `RefSpec`s, or one; `None` for null.
    pub(super) fn ref_specs(&self, at: usize) -> Result<Option<Vec<String>>, Throw> {
        self.any(at)?.map(ref_specs).transpose()
    }

    /// A collection of paths; null is empty. The controller's may be a view on its own `SparseCheckoutPath`s.
    pub(super) fn paths(&self, at: usize) -> Result<Vec<String>, Throw> {
        let Some(view) = self.any(at)? else { return Ok(Vec::new()) };
        let view = match view.class_name().as_ref() {
            "com.google.common.collect.Lists$TransformingRandomAccessList"
            | "com.google.common.collect.Lists$TransformingSequentialList" => view.require("fromList")?,
            _ => view,
        };
        let path = |item: View<'_>| match item.is("java.lang.String") {
            true => item.as_str().map(Into::into),
            false => item.require_string("path").map(Into::into),
        };
        Ok(view.collection()?.into_iter().flatten().map(path).collect::<Result<_, _>>()?)
    }
}

/// Reads an `org.eclipse.jgit.lib.ObjectId`, which writes its 20 bytes and no fields.
pub(super) fn object_id(view: View<'_>) -> Result<Sha, Throw> {
    let bytes = view.annotation_bytes("org.eclipse.jgit.lib.ObjectId");
    if bytes.len() != 20 {
        return Err(view.error("no object id").into());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn ref_specs(view: View<'_>) -> Result<Vec<String>, Throw> {
    let items = match view.elements() {
        Ok(items) => items.collect(),
        Err(_) => view.collection().unwrap_or_else(|_| vec![Some(view)]),
    };
    items.into_iter().flatten().map(ref_spec).collect()
}

/// `RefSpec.toString`
pub(super) fn ref_spec(view: View<'_>) -> Result<String, Throw> {
    let force = if view.bool("force")? { "+" } else { "" };
    if view.bool("matching")? {
        return Ok(format!("{force}:"));
    }
    let negative = if view.bool("negative")? { "^" } else { "" };
    let source = view.string("srcName")?.unwrap_or_default();
    let target = view.string("dstName")?.map(|target| format!(":{target}")).unwrap_or_default();
    Ok(format!("{force}{negative}{source}{target}"))
}

/// A branch or a tag, as `hudson.plugins.git.GitObject` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) sha: Sha,
}

/// A `hudson.plugins.git.IndexEntry`: mode, type, object and file.
pub(super) type IndexEntry = [String; 4];

/// Descriptors are looked for by name in the whole graph, so lists get theirs once.
pub(super) struct Values<'g> {
    pub(super) graph: &'g mut Graph,
    id: NodeId,
}

impl<'g> Values<'g> {
    pub(super) fn new(graph: &'g mut Graph) -> Values<'g> {
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let id = graph.class_desc("org.eclipse.jgit.lib.ObjectId", 1, flags, &[], None);
        Values { graph, id }
    }

    pub(super) fn object_id(&mut self, sha: &str) -> NodeId {
        self.graph.object(self.id).annotate_bytes(self.id, sha_bytes(sha)).build()
    }

    fn git_object(&mut self) -> NodeId {
        let fields = [("name", "Ljava/lang/String;"), ("sha1", "Lorg/eclipse/jgit/lib/ObjectId;")];
        self.graph.serializable("hudson.plugins.git.GitObject", 1, &fields, None)
    }

    fn named(&mut self, desc: NodeId, items: &[Named]) -> Vec<Option<NodeId>> {
        let build = |item: &Named| {
            let (name, sha) = (self.graph.string(&item.name), self.object_id(&item.sha));
            Some(self.graph.object(desc).set_ref("name", name).set_ref("sha1", sha).build())
        };
        items.iter().map(build).collect()
    }

    /// `hudson.plugins.git.Branch`es.
    pub(super) fn branches(&mut self, branches: &[Named]) -> Vec<Option<NodeId>> {
        let parent = self.git_object();
        let desc = self.graph.serializable("hudson.plugins.git.Branch", 1, &[], Some(parent));
        self.named(desc, branches)
    }

    /// `hudson.plugins.git.GitObject`s.
    pub(super) fn git_objects(&mut self, objects: &[Named]) -> Vec<Option<NodeId>> {
        let desc = self.git_object();
        self.named(desc, objects)
    }

    /// `hudson.plugins.git.Tag`s.
    pub(super) fn tags(&mut self, tags: &[Named]) -> Vec<Option<NodeId>> {
        let parent = self.git_object();
        let fields = [("commitMessage", "Ljava/lang/String;"), ("commitSHA1", "Ljava/lang/String;")];
        let desc = self.graph.serializable("hudson.plugins.git.Tag", 1, &fields, Some(parent));
        self.named(desc, tags)
    }

    /// `hudson.plugins.git.IndexEntry`s.
    pub(super) fn index_entries(&mut self, entries: &[IndexEntry]) -> Vec<Option<NodeId>> {
        const STRING: &str = "Ljava/lang/String;";
        let fields = [("file", STRING), ("mode", STRING), ("object", STRING), ("type", STRING)];
        let desc = self.graph.serializable("hudson.plugins.git.IndexEntry", 1, &fields, None);
        let build = |[mode, kind, object, file]: &IndexEntry| {
            let [mode, kind, object, file] = [mode, kind, object, file].map(|text| self.graph.string(text));
            let entry = self.graph.object(desc).set_ref("mode", mode).set_ref("type", kind);
            Some(entry.set_ref("object", object).set_ref("file", file).build())
        };
        entries.iter().map(build).collect()
    }

    /// An `org.eclipse.jgit.revwalk.RevCommit` as `RevWalk.parseCommit` leaves it: body, tree and parents known, those
    /// not parsed themselves.
    ///
    /// Its classes declare no `serialVersionUID`: see [`CommitUids`].
    pub(super) fn rev_commit(&mut self, commit: &Commit, uids: &CommitUids) -> NodeId {
        const PARSED: i32 = 1;
        const PARENTS: &str = "[Lorg/eclipse/jgit/revwalk/RevCommit;";
        let graph = &mut *self.graph;
        let entry = "org.eclipse.jgit.lib.ObjectIdOwnerMap$Entry";
        let entry = graph.serializable(entry, uids.entry, &[], Some(self.id));
        let object = "org.eclipse.jgit.revwalk.RevObject";
        let object = graph.serializable(object, uids.object, &[("flags", "I")], Some(entry));
        let fields = [
            ("commitTime", "I"),
            ("inDegree", "I"),
            ("buffer", "[B"),
            ("parents", PARENTS),
            ("tree", "Lorg/eclipse/jgit/revwalk/RevTree;"),
        ];
        let class = "org.eclipse.jgit.revwalk.RevCommit";
        let class = graph.serializable(class, uids.commit, &fields, Some(object));
        let tree = "org.eclipse.jgit.revwalk.RevTree";
        let tree = graph.serializable(tree, uids.tree, &[], Some(object));
        let id = self.id;
        let tree = graph.object(tree).annotate_bytes(id, sha_bytes(&commit.tree)).build();
        let mut parents = Vec::new();
        for parent in &commit.parents {
            parents.push(Some(graph.object(class).annotate_bytes(id, sha_bytes(parent)).build()));
        }
        let parents = graph.array("[Lorg.eclipse.jgit.revwalk.RevCommit;", -4202826130737015141, &parents);
        let buffer = graph.byte_array(commit.body.clone().into());
        graph
            .object(class)
            .annotate_bytes(id, sha_bytes(&commit.sha))
            .set("flags", Value::Int(PARSED))
            .set("commitTime", Value::Int(commit.time))
            .set_ref("buffer", buffer)
            .set_ref("parents", parents)
            .set_ref("tree", tree)
            .build()
    }
}

/// The computed `serialVersionUID`s of JGit's classes for a commit; they differ from release to release.
pub(super) struct CommitUids {
    entry: i64,
    object: i64,
    commit: i64,
    tree: i64,
}

impl CommitUids {
    /// Those of JGit 5.11, which git-client 3.7.1 brings.
    const JGIT_5_11: CommitUids = CommitUids {
        entry: -3650801874292099527,
        object: 99620771947899148,
        commit: -5137042470336945179,
        tree: 8952480809292200450,
    };

    /// Those of the controller's own class files, or of JGit 5.11 where it gives none. Blocks.
    pub(super) fn of(call: &Call) -> CommitUids {
        let asked = || {
            Ok(CommitUids {
                entry: call.class_uid("org.eclipse.jgit.lib.ObjectIdOwnerMap$Entry")?,
                object: call.class_uid("org.eclipse.jgit.revwalk.RevObject")?,
                commit: call.class_uid("org.eclipse.jgit.revwalk.RevCommit")?,
                tree: call.class_uid("org.eclipse.jgit.revwalk.RevTree")?,
            })
        };
        asked().unwrap_or_else(|error: Throw| {
            tracing::debug!("the controller's JGit is taken for 5.11: {error}");
            CommitUids::JGIT_5_11
        })
    }
}

/// A commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    sha: Sha,
    tree: Sha,
    pub(super) parents: Vec<Sha>,
    /// Seconds since 1970.
    pub(super) time: i32,
    /// The object as it is stored.
    body: Vec<u8>,
}

impl Commit {
    /// Reads what `git cat-file commit` prints. `None` if that is no commit.
    pub(super) fn parse(sha: &str, body: &[u8]) -> Option<Commit> {
        let text = String::from_utf8_lossy(body);
        let headers = || text.lines().take_while(|line| !line.is_empty());
        let tree = headers().find_map(|line| line.strip_prefix("tree "))?.to_owned();
        let parents = headers().filter_map(|line| line.strip_prefix("parent ")).map(str::to_owned).collect::<Vec<_>>();
        let committer = headers().find_map(|line| line.strip_prefix("committer "));
        let time = committer.and_then(|line| line.rsplit(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let all_sha = is_sha(sha) && is_sha(&tree) && parents.iter().all(|parent| is_sha(parent));
        all_sha.then(|| Commit { sha: sha.to_owned(), tree, parents, time, body: body.to_vec() })
    }
}

fn sha_bytes(sha: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    sha.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | pair.get(1).map_or(0, |byte| digit(*byte))).collect()
}

/// An answer with one object.
pub(super) fn reply(call: &crate::callables::Call, build: impl FnOnce(&mut Values<'_>) -> NodeId) -> Reply {
    call.reply(|graph| build(&mut Values::new(graph)))
}
