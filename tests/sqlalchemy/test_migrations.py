"""Alembic sees encrypted columns as they are stored, and its migrations know nothing of keys."""

import enum
import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations.ops import AlterColumnOp, DowngradeOps, MigrationScript, ModifyTableOps, UpgradeOps
from sqlalchemy.dialects import mysql

from fieldvault.sqlalchemy import BlindIndex, Encrypted, migrations

SECRET = "Aleksandra Wiśniewska"

ENV = """
from alembic import context
from fieldvault.sqlalchemy import migrations

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    render_as_batch=attributes["connection"].dialect.name == "sqlite",
    render_item=migrations.render_item,
    compare_type=migrations.compare_type,
    process_revision_directives=migrations.process_revision_directives,
)
with context.begin_transaction():
    context.run_migrations()
"""


class Project:
    """An application's folder of migrations, and its database."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self.engine = engine
        self.config = Config(folder.with_name("alembic.ini"), stdout=io.StringIO())
        command.init(self.config, str(folder))
        (folder / "env.py").write_text(ENV, encoding="utf-8")

    @property
    def database(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return "mysql" if self.engine.dialect.name == "mariadb" else self.engine.dialect.name

    def _run(self, action: Callable[..., Any], metadata: sa.MetaData, *arguments: Any, **options: Any) -> Any:
        with self.engine.begin() as connection:
            self.config.attributes.update(connection=connection, metadata=metadata)
            return action(self.config, *arguments, **options)

    def autogenerate(self, metadata: sa.MetaData) -> str:
        """Write a migration from what the database has to the models; return its source."""
        script = self._run(command.revision, metadata, autogenerate=True)
        return Path(script.path).read_text(encoding="utf-8")

    def upgrade(self) -> None:
        """Run the migrations that have not run."""
        self._run(command.upgrade, sa.MetaData(), "head")

    def downgrade(self) -> None:
        """Undo the last one."""
        self._run(command.downgrade, sa.MetaData(), "-1")

    def pending(self, metadata: sa.MetaData) -> list[Any]:
        """What there is to migrate, as Alembic sees it."""
        with self.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": migrations.compare_type})
            return list(compare_metadata(context, metadata))

    def execute(self, statement: sa.Executable) -> None:
        """Execute and commit."""
        with self.engine.begin() as connection:
            connection.execute(statement)

    def stored(self, name: str = "people") -> dict[str, str]:
        """The columns of a table with their types as the database calls them."""
        columns = sa.inspect(self.engine).get_columns(name)
        return {each["name"]: each["type"].compile(self.engine.dialect) for each in columns}

    def values(self, column: str = "name", table: str = "people") -> list[Any]:
        """What a column holds, read without any types."""
        chosen: sa.Select[Any] = (
            sa.select(sa.column(column)).select_from(sa.table(table)).order_by(sa.column("id"))
        )
        with self.engine.connect() as connection:
            return list(connection.scalars(chosen))


@pytest.fixture
def project(database_url: str, tmp_path: Path) -> Iterator[Project]:
    """Migrations on each database in turn."""
    engine = sa.create_engine(database_url)
    yield Project(engine, tmp_path / "migrations")
    engine.dispose()


class Level(enum.Enum):
    """What a column may hold; its members are nobody's business."""

    VERY_HIDDEN = 1


def people(*columns: sa.Column[Any]) -> sa.MetaData:
    """Models with one table of these columns."""
    metadata = sa.MetaData()
    sa.Table("people", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
    return metadata


def everything() -> sa.MetaData:
    """Tables with a column of every type that can be encrypted, in both storages, and indexes of lengths."""
    metadata = people(
        sa.Column("shop", sa.String(40), nullable=False),
        sa.Column("name", Encrypted(sa.String(80)), nullable=False, default=SECRET),
        sa.Column("email", Encrypted(sa.String(80), storage="text", padding=32, erased=SECRET)),
        sa.Column("note", Encrypted(sa.Text, field="people.remark", suite="XChaCha20-Poly1305")),
        sa.Column("name_index", BlindIndex("name"), index=True),
        sa.Column("email_index", BlindIndex(["name", "email"], bits=20, name="people.both"), unique=True),
        sa.Column("byte_index", BlindIndex("email", normalize="casefold", bits=8)),
        sa.Column("badge", Encrypted(sa.String(20), deterministic=True), unique=True),
        sa.Column("pass", Encrypted(sa.String(20), deterministic=True, storage="text"), index=True),
        sa.Column("card", Encrypted(sa.String(20), bind_row=True)),
    )
    types: list[Any] = [
        sa.BigInteger,
        sa.Boolean,
        sa.Date,
        sa.DateTime(timezone=True),
        sa.Enum(Level),
        sa.Float,
        sa.Integer,
        sa.Interval,
        sa.JSON,
        sa.LargeBinary(100),
        sa.Numeric(10, 2),
        sa.String(10).with_variant(sa.Text(), "postgresql"),
        sa.Time,
        sa.Unicode(20),
        sa.Uuid,
    ]
    for storage in ("binary", "text"):
        columns: list[sa.Column[Any]] = [
            sa.Column(f"c{number}", Encrypted(each, storage=storage)) for number, each in enumerate(types)
        ]
        sa.Table(f"types_{storage}", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("customer", sa.ForeignKey("people.id")),
        sa.Column("address", Encrypted(sa.Text, suite="AES-256-SIV")),
    )
    return metadata


def test_nothing_is_to_migrate_where_the_models_made_the_tables(project: Project) -> None:
    """On an unchanged model, autogenerate yields an empty migration."""
    everything().create_all(project.engine)
    assert project.pending(everything()) == []
    source = project.autogenerate(everything())
    assert source.count("    pass\n") == 2
    assert "op." not in source.split("def upgrade")[1]


def test_nothing_is_to_migrate_where_a_migration_made_the_tables(project: Project) -> None:
    """The stored types in migrations are those that the models ask for."""
    project.autogenerate(everything())
    project.upgrade()
    assert project.pending(everything()) == []


def test_a_migration_makes_what_the_models_would_make(project: Project) -> None:
    """Up, each column is as large as ``create_all`` makes it; down, all are gone; and up again."""
    everything().create_all(project.engine)
    names = ("people", "types_binary", "types_text", "orders")
    made = {name: project.stored(name) for name in names}
    everything().drop_all(project.engine)
    project.autogenerate(everything())
    for _ in range(2):
        project.upgrade()
        migrated = {name: project.stored(name) for name in names}
        # An unbounded VARCHAR is PostgreSQL's TEXT by another name.
        unify = {"VARCHAR": "TEXT"} if project.database == "postgresql" else {}
        assert migrated == {
            name: {column: unify.get(type_, type_) for column, type_ in columns.items()}
            for name, columns in made.items()
        }
        project.downgrade()
        assert set(sa.inspect(project.engine).get_table_names()) == {"alembic_version"}


def test_a_migration_holds_neither_secrets_nor_our_names(project: Project) -> None:
    """It needs SQLAlchemy and Alembic only, and tells nothing of defaults, stand-ins, members and fields."""
    source = project.autogenerate(everything())
    assert SECRET not in source
    assert re.findall(r"(?i)fieldvault|encrypted|blindindex|hidden|remark|casefold|padding", source) == []
    assert set(re.findall(r"^(?:from|import) .*", source, re.MULTILINE)) <= {
        "from typing import Sequence, Union",
        "from collections.abc import Sequence",
        "from alembic import op",
        "import sqlalchemy as sa",
        "from sqlalchemy.dialects import mysql",
    }


PLAIN: sa.Column[Any] = sa.Column("name", sa.String(80))
DATED: sa.Column[Any] = sa.Column("name", sa.Date)
BINARY: sa.Column[Any] = sa.Column("name", Encrypted(sa.String(80)))
TEXTUAL: sa.Column[Any] = sa.Column("name", Encrypted(sa.String(80), storage="text"))

CHANGES: dict[str, tuple[sa.Column[Any], sa.Column[Any]]] = {
    "plain to encrypted": (PLAIN, BINARY),
    "plain to encrypted text": (PLAIN, TEXTUAL),
    "a date to encrypted": (DATED, BINARY),
    "binary to text": (BINARY, TEXTUAL),
    "text to binary": (TEXTUAL, BINARY),
}


def model(column: sa.Column[Any]) -> sa.MetaData:
    """Models with this column, and a blind index where that has something to index."""
    return people(column._copy(), sa.Column("age", sa.Integer))


def put(project: Project, column: sa.Column[Any], value: object) -> None:
    """Write a row behind the back of the types."""
    number = 1 if value is None else 2
    if value is not None:
        value = (
            b"\x01sealed"
            if "BLOB" in project.stored()["name"] or "BYTEA" in project.stored()["name"]
            else value
        )
    statement = sa.insert(sa.table("people", sa.column("id"), sa.column(column.name)))
    project.execute(statement.values({"id": number, column.name: value}))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_column_is_migrated_up_and_down(project: Project, change: str) -> None:
    """The migration runs over rows without a value, and afterwards nothing is left to migrate."""
    old, new = CHANGES[change]
    model(old).create_all(project.engine)
    before = project.stored()
    put(project, old, None)
    project.autogenerate(model(new))
    for _ in range(2):
        project.upgrade()
        assert project.pending(model(new)) == []
        assert project.stored()["name"] != before["name"]
        project.downgrade()
        assert project.pending(model(old)) == []
        assert project.stored() == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_column_that_holds_values_is_left_alone(project: Project, change: str) -> None:
    """The database cannot seal, open or re-encode: the migration stops before it changes anything."""
    old, new = CHANGES[change]
    model(old).create_all(project.engine)
    project.autogenerate(model(new))
    before = project.stored()
    put(project, old, "2001-02-03")
    with pytest.raises(sa.exc.DBAPIError, match="column_still_holds_values"):
        project.upgrade()
    assert project.stored() == before
    project.execute(sa.text("DELETE FROM people"))
    project.upgrade()
    after = project.stored()
    put(project, new, "2001-02-03")
    with pytest.raises(sa.exc.DBAPIError, match="column_still_holds_values"):
        project.downgrade()
    assert project.stored() == after


def test_other_changes_of_the_same_column_come_along(project: Project) -> None:
    """A plain column's default goes before its type does, and comes back after it."""
    old = sa.Column("name", sa.String(80), server_default="nobody", nullable=False)
    new: sa.Column[Any] = sa.Column("name", Encrypted(sa.String(80)), nullable=True)
    model(old).create_all(project.engine)
    project.autogenerate(model(new))
    project.upgrade()
    (column,) = (each for each in sa.inspect(project.engine).get_columns("people") if each["name"] == "name")
    assert column["nullable"]
    assert column["default"] in (None, "NULL")
    project.downgrade()
    (column,) = (each for each in sa.inspect(project.engine).get_columns("people") if each["name"] == "name")
    assert not column["nullable"]
    assert "nobody" in str(column["default"])


def test_a_column_is_added_and_dropped(project: Project) -> None:
    """Of an encrypted column and its index, nothing but the stored types is in the migration."""
    without, with_both = people(), people(BINARY._copy(), sa.Column("name_index", BlindIndex("name")))
    without.create_all(project.engine)
    project.autogenerate(with_both)
    project.upgrade()
    assert project.pending(with_both) == []
    project.autogenerate(without)
    project.upgrade()
    assert project.pending(without) == []
    project.downgrade()
    assert project.pending(with_both) == []


def test_an_index_of_another_length_is_emptied_before_it_changes(project: Project) -> None:
    """Tokens of two lengths do not mix; only MySQL and MariaDB have the length in the type."""
    old = people(BINARY._copy(), sa.Column("name_index", BlindIndex("name")))
    new = people(BINARY._copy(), sa.Column("name_index", BlindIndex("name", bits=20)))
    old.create_all(project.engine)
    if project.database != "mysql":
        assert project.pending(new) == []
        return
    project.autogenerate(new)
    people_ = sa.table("people", sa.column("id"), sa.column("name_index"))
    project.execute(sa.insert(people_).values(id=1, name_index=bytes(32)))
    with pytest.raises(sa.exc.DBAPIError, match="column_still_holds_values"):
        project.upgrade()
    project.execute(sa.update(people_).values(name_index=None))
    project.upgrade()
    assert project.stored()["name_index"] == "VARBINARY(3)"
    assert project.pending(new) == []
    project.downgrade()
    assert project.pending(old) == []


def test_a_column_of_bytes_grows_with_what_it_holds(mariadb_url: str, tmp_path: Path) -> None:
    """A BLOB made by hand becomes a MEDIUMBLOB; the ciphertexts in it stay."""
    engine = sa.create_engine(mariadb_url)
    project = Project(engine, tmp_path / "migrations")
    model(sa.Column("name", sa.LargeBinary)).create_all(engine)
    assert project.stored()["name"] == "BLOB"
    put(project, BINARY, "sealed")
    project.autogenerate(model(BINARY))
    project.upgrade()
    assert project.stored()["name"] == "MEDIUMBLOB"
    assert project.values() == [b"\x01sealed"]
    engine.dispose()


def test_names_that_want_quotes_get_them(project: Project) -> None:
    """Colons too, which Alembic takes for parameters."""
    tables = []
    for type_ in (sa.String(80), Encrypted(sa.String(80))):
        metadata = sa.MetaData()
        columns: list[sa.Column[Any]] = [
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("Full :name", type_),
        ]
        sa.Table("Odd :people", metadata, *columns)
        tables.append(metadata)
    old, new = tables
    old.create_all(project.engine)
    project.autogenerate(new)
    odd = sa.table("Odd :people", sa.column("id"), sa.column("Full :name"))
    project.execute(sa.insert(odd).values({"id": 1, "Full :name": "x"}))
    with pytest.raises(sa.exc.DBAPIError, match="column_still_holds_values"):
        project.upgrade()
    project.execute(sa.delete(odd))
    project.upgrade()
    assert project.pending(new) == []
    project.downgrade()
    assert project.pending(old) == []


def test_a_table_in_a_schema_is_named_with_it() -> None:
    """The check and the change are of the right table."""
    context = MigrationContext.configure(dialect_name="postgresql")
    change = AlterColumnOp(
        "people", "name", schema="Crm", existing_type=sa.String(80), modify_type=Encrypted(sa.String(80))
    )
    up = UpgradeOps([ModifyTableOps("people", [change], schema="Crm")])
    migrations.process_revision_directives(context, (), [MigrationScript(None, up, DowngradeOps([]))])
    assert [each.sqltext for each in up.ops if not isinstance(each, ModifyTableOps)][1:] == [  # type: ignore[attr-defined]
        'INSERT INTO fieldvault_check SELECT COUNT(name) FROM "Crm".people',
        "DROP TABLE fieldvault_check",
        'ALTER TABLE "Crm".people ALTER COLUMN name TYPE BYTEA USING NULL',
    ]


def test_other_types_are_left_to_alembic(project: Project) -> None:
    """Their changes are seen, written and run as without fieldvault."""
    old, new = people(sa.Column("note", sa.String(80))), people(sa.Column("note", sa.LargeBinary))
    old.create_all(project.engine)
    (((kind, *_),),) = project.pending(new)
    assert kind == "modify_type"
    source = project.autogenerate(new)
    assert "type_=sa.LargeBinary()," in source
    assert "execute" not in source


@pytest.mark.parametrize("type_", [sa.String(80), sa.LargeBinary(), sa.Uuid()], ids=str)
def test_the_hooks_say_nothing_of_other_types(type_: Any) -> None:
    """So an application's own hooks can ask these first."""
    context = MigrationContext.configure(dialect_name="postgresql")
    column: sa.Column[Any] = sa.Column("x", type_)
    assert migrations.compare_type(context, column, column, sa.INTEGER(), type_) is None
    assert migrations.render_item("type", type_, AutogenContext(context)) is False
    assert migrations.render_item("column", BINARY, AutogenContext(context)) is False


def test_on_mysql_the_names_of_types_are_compared_by_alembic() -> None:
    """There the type alone tells a column that is too small."""
    context = MigrationContext.configure(dialect_name="mysql")
    assert migrations.compare_type(context, BINARY, BINARY, mysql.BLOB(), BINARY.type) is None


def test_the_module_needs_no_alembic() -> None:
    """An application without Alembic may import everything."""
    code = "import sys; sys.modules['alembic'] = None; import fieldvault.sqlalchemy.migrations"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
