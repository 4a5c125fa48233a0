import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError
from acmix.data.tables.reading import read_table


def table(tmp_path, text, name="labels.csv", known=None):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(file, known)


def labelled(found):
    names = [{found.classes[label] for label in labels} for labels in found.labels]
    return dict(zip(found.names, names, strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,labels\na.jpg,cat;dog\nb.jpg,dog\nc.jpg,\n", "labels separated by ;"),
        ("a.jpg,cat;dog\nb.jpg,dog\nc.jpg,\n", "labels separated by ;"),
        ("cat|dog,a.jpg\ndog,b.jpg\n,c.jpg\n", "labels separated by |"),
        ('Image_Name,Tags\na.jpg,"cat, dog"\nb.jpg,dog\nc.jpg,\n', "labels separated by ,"),
        ("image,labels\na.jpg,cat dog\nb.jpg,dog\nc.jpg,\n", "labels separated by blanks"),
        ("image;label\na.jpg;cat|dog\nb.jpg;dog\nc.jpg;\n", "labels separated by |"),
        (",image,labels\n0,a.jpg,cat;dog\n1,b.jpg,dog\n2,c.jpg,\n", "labels separated by ;"),
        ("label,width,image\ncat;dog,3,a.jpg\ndog,4,b.jpg\n,5,c.jpg\n", "labels separated by ;"),
        ("filename, cat, dog\na.jpg, 1, 1\nb.jpg, 0, 1\nc.jpg, 0, 0\n", "a column of 0 and 1 for each class"),
        (",cat,dog\na.jpg,1.0,1.0\nb.jpg,0.0,1.0\nc.jpg,0.0,0.0\n", "a column of 0 and 1 for each class"),
        (
            "cat,dog,id\nTrue,TRUE,./a.jpg\nFalse,True,b.jpg\nFalse,False,c.jpg\n",
            "a column of 0 and 1 for each class",
        ),
        ("\ufeffimage,labels\r\na.jpg,cat;dog\r\n\r\nb.jpg,dog\r\nc.jpg,\r\n", "labels separated by ;"),
    ],
)
def test_forms_of_several_labels(tmp_path, text, words):
    found = table(tmp_path, text)
    assert labelled(found) == {"a.jpg": {"cat", "dog"}, "b.jpg": {"dog"}, "c.jpg": set()}
    assert (found.several, found.words) == (True, words)


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.jpg,cat\nb.jpg,big dog\n",
        "a.jpg,cat\nb.jpg,big dog\n",
        'image,label\na.jpg,"cat"\nb.jpg,big dog\n',
        "id,cat,big dog\na.jpg,1,0\nb.jpg,0,1\n",
        "file_name\tclass\na.jpg\tcat\nb.jpg\tbig dog\n",
    ],
)
def test_forms_of_one_label(tmp_path, text):
    found = table(tmp_path, text, "labels.tsv" if "\t" in text else "labels.csv")
    assert labelled(found) == {"a.jpg": {"cat"}, "b.jpg": {"big dog"}}
    assert found.several is None


def test_numbers_may_be_names_of_classes(tmp_path):
    assert table(tmp_path, "image,label\na.jpg,0\nb.jpg,1\n").classes == ("0", "1")
    assert table(tmp_path, "image,0,1\na.jpg,0,1\nb.jpg,1,1\n").classes == ("0", "1")


def test_a_class_without_images_stays_a_column(tmp_path):
    assert table(tmp_path, "image,b,a\nx.jpg,1,0\ny.jpg,1,0\n").classes == ("b", "a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no rows"),
        ("image,label\n", "a heading and no rows"),
        ("image\na.jpg\n", "one column"),
        ("0,image\n1,a.jpg\n", r"has no heading|neither are all"),
        ("image,cat\na.jpg,1\nb.jpg,0\n", "neither are all of them, of two or more, of 0 and 1"),
        ("image,age,weight\na.jpg,5,6\n", "age, weight beside image"),
        ("image,label,labels\na.jpg,x,y\n", "label, labels beside image"),
        ("image,label,split\na.jpg,x,val\n", "'split', which may say what is validated with"),
        ("image,label,label\na.jpg,x,y\n", "two columns 'label'"),
        ("image,xmin,ymin,label\na.jpg,1,2,x\n", "a column 'xmin', as tables of objects have"),
        ("image,cat,\na.jpg,1,0\n", "no heading over column 3"),
        ("img1,1,0\nimg2,0,1\n", "has no heading"),
        ("a.jpg,1,0\nb.jpg,0,1\n", "has no heading, and its first row is a.jpg, 1, 0"),
        ("image,cat,dog\na.jpg,1,0\nb.jpg,-1,1\n", r"cat, dog beside image.*\(line 3: '-1' under cat\)"),
        ("image,cat,dog\na.jpg,1,0\nb.jpg,1,\n", r"\(line 3: '' under dog\)"),
        ("image,label\ra.jpg,x\rb.jpg,y\r", "line 1: its lines end as those of old Macs"),
        ("image,label\na.jpg,x,y\n", "line 2: 3 cells, the first row has 2"),
        ("image,label\n,x\n", "line 2: no image is named"),
        ("image,label\na.jpg,x\n./a.jpg,y\n", r"names a.jpg in lines 2 and 3; join these rows"),
        ("image,label\n../a.jpg,x\n", r"line 2: '../a.jpg' is absolute or leads out of the data folder"),
        ("image,label\n/etc/a.jpg,x\n", "line 2: '/etc/a.jpg' is absolute or leads out"),
        ("image,label\nC:\\x\\a.jpg,x\n", "leads out"),
        ("image,label\na/../../b.jpg,x\n", "leads out"),
        ('image,label\na.jpg,"x\nb.jpg,y\n', "a quote is opened and not closed"),
        (f"image,label\na.jpg,{'x' * 140_000}\n", "line 2: a cell may have 131,072 letters"),
        (f"image,label\na.jpg,{'x,' * 3_000_000}\n", "line 2: a line may have"),
        ("image,label\na.jpg,é\n".encode("latin1"), r"line 2: not UTF-8 .*; save it as UTF-8"),
        ("image,label\na.jpg,x\n".encode("utf-16"), "line 1: not UTF-8"),
        ("image,labels\na.jpg,x;y\nb.jpg,x|y\n", r"has both ; and \|"),
        ("image,labels\na.jpg,golden retriever\nb.jpg,tabby cat\n", "'golden retriever' may be one label or 2"),
        ("image,label\na.jpg,cat dog\nb.jpg,dog\nc.jpg,cat\n", "'cat dog' may be one label or 2"),
        ('image,label\na.jpg,"cat,dog"\nb.jpg,"dog,bird"\n', "'cat,dog' may be one label or 2"),
        ("image,Ä,A\u0308\na.jpg,1,0\n", "two columns of one name in different Unicode forms"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, text, reason):
    with pytest.raises(InputError, match=reason) as raised:
        table(tmp_path, text)
    assert "labels.csv" in str(raised.value)


def test_names_of_classes_may_hold_commas_where_nothing_comes_again(tmp_path):
    found = table(tmp_path, 'image,label\na.jpg,"tench, Tinca tinca"\nb.jpg,"lion, king of beasts"\n')
    assert found.classes == ("lion, king of beasts", "tench, Tinca tinca")


def test_known_classes_tell_what_blanks_mean(tmp_path):
    text = "image,labels\na.jpg,tabby cat\n"
    with pytest.raises(InputError, match="may be one label or 2"):
        table(tmp_path, text)
    assert table(tmp_path, text, known=("cat", "tabby")).classes == ("cat", "tabby")
    assert table(tmp_path, text, known=("tabby cat", "dog")).classes == ("tabby cat",)


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters=';|,"\\/', exclude_categories=("C", "Z")), min_size=1)


@given(st.lists(st.sets(_NAMES.filter(lambda name: name not in (".", "..")), max_size=4), min_size=1, max_size=8))
def test_any_names_of_classes_come_back(tmp_path_factory, sets):
    import unicodedata

    sets = [{unicodedata.normalize("NFC", name) for name in names} for names in sets]
    rows = "".join(f"{index}.jpg,{';'.join(sorted(names))};\n" for index, names in enumerate(sets))
    found = table(tmp_path_factory.mktemp("table"), f"image,labels\n{rows}")
    assert list(labelled(found).values()) == sets
