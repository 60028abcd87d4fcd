//! The configurations in a file: as documents, and in objects of Kubernetes around them.

use super::super::{
    imported::{Imported, NotRead},
    sources::Source,
    tree::{self, At, Lines},
};

/// Takes all configurations of a file out of it.
pub(super) fn read(source: &Source, found: &mut Vec<At>, imported: &mut Imported) -> Result<(), NotRead> {
    let text = source.text()?;
    let mut is_first = true;
    for document in tree::read(text, Lines::After(source.before))? {
        if document.is_nothing() {
            continue;
        }
        if document.field("kind").is_some() && document.field("apiVersion").is_some() {
            object(document, text, found, imported)?;
        } else {
            if !is_first {
                imported.note(
                    document.line,
                    "envoyproxy/ratelimit reads only the first document of a file; this one is carried over all the same",
                );
            }
            found.push(document);
        }
        is_first = false;
    }
    Ok(())
}

/// An object of Kubernetes.
fn object(
    mut object: At,
    text: &str,
    found: &mut Vec<At>,
    imported: &mut Imported,
) -> Result<(), NotRead> {
    let line = object.line;
    let kind = object.field("kind").and_then(At::text).unwrap_or_default().to_owned();
    match &*kind {
        "List" | "ConfigMapList" => {
            let Some(items) = object.field_mut("items") else { return Ok(()) };
            items.take_items().into_iter().try_for_each(|item| self::object(item, text, found, imported))
        }
        // The items of a ConfigMapList need not say what they are.
        "ConfigMap" | "" => config_map(&object, text, found, imported),
        "Secret" => {
            imported.lost(line, "a Secret: only ConfigMaps are read; give the file that it was made of");
            Ok(())
        }
        _ => {
            imported.note(line, format!("an object of the kind {kind} is left out: only ConfigMaps are read"));
            Ok(())
        }
    }
}

fn config_map(
    map: &At,
    text: &str,
    found: &mut Vec<At>,
    imported: &mut Imported,
) -> Result<(), NotRead> {
    if let Some(binary) = map.field("binaryData").filter(|binary| binary.fields().is_some_and(|all| !all.is_empty())) {
        imported.lost(binary.line, "binaryData of a ConfigMap: only data is read; give the file that it was made of");
    }
    let Some(data) = map.field("data").filter(|data| !data.is_nothing()) else { return Ok(()) };
    let message = "the data of a ConfigMap is a map of names and texts";
    let Some(files) = data.fields() else {
        return Err(NotRead { line: data.line, message: message.to_owned() });
    };
    for (name, file) in files {
        let Some(inside) = file.text() else { continue };
        let documents = match file.documents(text, inside) {
            Ok(documents) => documents,
            Err(NotRead { line, message }) => {
                imported.lost(line, format!("{name} of a ConfigMap is no YAML: {message}"));
                continue;
            }
        };
        for document in documents.into_iter().filter(|document| !document.is_nothing()) {
            if document.field("domain").is_some() || document.field("descriptors").is_some() {
                found.push(document);
            } else {
                imported.note(
                    document.line,
                    format!("{name} of a ConfigMap is left out: it has neither domain nor descriptors"),
                );
            }
        }
    }
    Ok(())
}
