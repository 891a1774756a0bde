"""The doors: every way by which values of encrypted columns get into or out of a database.

A door's name is stable: it stands in docs/doors.md and in the outcomes of past runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SYNCHRONOUS = ("sqlite", "psycopg", "asyncpg", "pymysql")
"""asyncpg reaches a synchronous interface through ``run_sync``."""

ASYNCHRONOUS = ("aiosqlite", "psycopg_async", "asyncpg")
BLOCKING = ("sqlite", "psycopg", "pymysql")
POSTGRESQL = ("psycopg", "asyncpg")
MARIADB = ("pymysql",)
WITHOUT_MARIADB = ("sqlite", "psycopg", "asyncpg")

DATABASES: Mapping[str, str] = {
    "sqlite": "SQLite",
    "aiosqlite": "SQLite",
    "psycopg": "PostgreSQL, psycopg",
    "psycopg_async": "PostgreSQL, psycopg",
    "asyncpg": "PostgreSQL, asyncpg",
    "pymysql": "MariaDB, PyMySQL",
}
"""The column of the matrix that a driver's outcome belongs to."""


@dataclass(frozen=True, slots=True)
class Door:
    """A way by which values of encrypted columns pass.

    Args:
        name: What it is called, for good.
        line: What it does.
        refused: Whether fieldvault refuses it, and says what to do instead.
        drivers: Those that it is tried on; the others do not have it.
    """

    name: str
    line: str
    refused: bool = False
    drivers: tuple[str, ...] = SYNCHRONOUS


GROUPS: Mapping[str, tuple[Door, ...]] = {
    "Unit of work": (
        Door("add", "`session.add_all`: rows of several tenants and subjects in one flush"),
        Door("change", "an attribute of a loaded object is assigned and flushed"),
        Door("merge", "`session.merge`: into a loaded row, and as a new one"),
        Door("delete an object", "`session.delete`"),
        Door("savepoint", "`begin_nested`, rolled back and released"),
        Door("rollback", "a whole transaction is rolled back"),
        Door("failed flush", "the database refuses a row: the objects hold their values, and go in mended"),
        Door("bulk_save_objects", "the legacy bulk interface for objects; changed ones inside the scope"),
        Door("bulk_save_objects without a scope", "the same, changed objects, no scope", refused=True),
        Door("bulk_insert_mappings", "the legacy bulk interface for dictionaries"),
        Door("bulk_update_mappings", "the same by primary key, inside the scope"),
        Door("expression as a value", "`object.name = func.lower(…)`", refused=True),
    ),
    "INSERT": (
        Door("Core insert", "`insert(table).values(…)` of one row"),
        Door("Core executemany", "`insert(table)` with a list of dictionaries"),
        Door("Core values list", "`insert(table).values([…])` where the scope says whose the rows are"),
        Door(
            "Core values list of rows with scopes",
            "`insert(table).values([…])` where each row says whose it is",
            refused=True,
        ),
        Door("Core returning", "`insert(table).values(…).returning(…)`"),
        Door("insertmanyvalues", "Core and ORM `insert().returning()` with a list of dictionaries"),
        Door("ORM bulk insert", "`insert(Model)` with a list of dictionaries"),
        Door("ORM insert of one row", "`insert(Model).values(…)`"),
        Door("ORM insert returning entities", "`insert(Model).returning(Model)`"),
        Door("insert in order", "`returning(…, sort_by_parameter_order=True)`"),
        Door("from_select", "`insert().from_select(…)`", refused=True),
        Door("insert of an expression", "`insert().values(name=func.lower(…))`", refused=True),
        Door(
            "insert without a scope", "a row that does not say whose it is, and no scope does", refused=True
        ),
        Door("scalar default", "`mapped_column(default=value)`, by flush and by Core"),
        Door("callable default", "`mapped_column(default=function)`, by flush and by Core"),
        Door("context-sensitive default", "a default that reads `context.get_current_parameters()`"),
        Door("server default", "`server_default=`, at the table's definition", refused=True),
        Door("onupdate", "`onupdate=`, at the table's definition", refused=True),
    ),
    "Upsert": (
        Door("upsert", "`on_conflict_do_update` with `excluded`, `on_duplicate_key_update` with `inserted`"),
        Door("upsert of many", "the same with a list of dictionaries"),
        Door("upsert to a value", "the same with a value of its own", refused=True),
        Door("upsert returning", "entities of what it did", drivers=WITHOUT_MARIADB),
        Door("on_conflict_do_nothing", "what is there stays", drivers=WITHOUT_MARIADB),
        Door("insert ignore", '`prefix_with("IGNORE")`: what is there stays', drivers=MARIADB),
    ),
    "UPDATE and DELETE": (
        Door("Core update", "`update(table).values(…)`, inside the scope"),
        Door("Core update of many", "`update(table)` with a list of dictionaries, inside the scope"),
        Door("ORM update, evaluate", '`update(Model)`, `synchronize_session="evaluate"`'),
        Door("ORM update, fetch", '`update(Model)`, `synchronize_session="fetch"`'),
        Door("ORM update by primary key", "`update(Model)` with a list of dictionaries"),
        Door("update without a scope", "`update(…)` where nothing says whose the value is", refused=True),
        Door("update to an expression", "`update().values(name=func.upper(…))`", refused=True),
        Door("update to another column", "`update().values(name=Model.city)`", refused=True),
        Door("plain column to an encrypted one", "`update().values(city=Model.name)`", refused=True),
        Door("update where encrypted", "`update().where(name == …)`", refused=True),
        Door("update returning", "`update().returning(…)`", drivers=WITHOUT_MARIADB),
        Door("Core delete", "`delete(table)`"),
        Door("ORM delete, evaluate", '`delete(Model)`, `synchronize_session="evaluate"`'),
        Door("ORM delete, fetch", '`delete(Model)`, `synchronize_session="fetch"`'),
        Door("delete where encrypted", "`delete().where(name == …)`", refused=True),
        Door("delete returning", "`delete().returning(…)`"),
    ),
    "Loading": (
        Door("session.get", "`session.get` and `get_one`"),
        Door("entities", "`select(Model)`"),
        Door("Query", "`session.query(Model)`"),
        Door("refresh", "`session.refresh`, whole and by attribute"),
        Door("refresh an expired object", "`session.refresh` of an attribute, after a commit"),
        Door("expire", "`session.expire`, whole and by attribute"),
        Door("defer", "`defer`, then the attribute is read"),
        Door("undefer", '`defer("*")`, some columns brought back'),
        Door("load_only", "`load_only` with the tenant, then another attribute is read"),
        Door("load_only without the tenant", "`load_only(Model.column)`, no scope", refused=True),
        Door("raiseload", "`defer(raiseload=True)` and `raiseload` of a relationship"),
        Door("lazy load", "a relationship is read, from both sides"),
        Door("joinedload", "also with a limit, which makes a subquery"),
        Door("selectinload", "of a collection and of its other end"),
        Door("subqueryload", "of a collection"),
        Door("immediateload", "of a collection"),
        Door("contains_eager", "`join` and `contains_eager`"),
        Door("yield_per", "`execution_options(yield_per=…)`"),
        Door("partitions", "`result.partitions(…)`"),
        Door("server-side cursor", "`stream_results=True`, by Core"),
        Door("populate_existing", "what another connection wrote is seen"),
        Door("from_statement", "`select(Model).from_statement(text(…))`"),
    ),
    "SELECT": (
        Door("column", "`select(Model.column)`, with the columns that say whose it is"),
        Door("column alone", "`select(Model.column)` inside the scope"),
        Door("column without a scope", "`select(Model.column)` where nothing says whose it is", refused=True),
        Door("labels", "`Model.column.label(…)` and `Bundle`"),
        Door("aliased", "`aliased(Model)` beside the model"),
        Door("subquery", "`select(…).subquery()`, also as an alias of entities"),
        Door("CTE", "`select(…).cte()`"),
        Door("recursive CTE", "`select(…).cte(recursive=True)`"),
        Door("lateral", "`select(…).lateral()`", drivers=POSTGRESQL),
        Door("scalar subquery", "`select(…).scalar_subquery()` inside the scope"),
        Door("union_all", "of one column"),
        Door("union_all of two columns", "of columns under two fields", refused=True),
        Door("union of rows", "`union` of rows with their primary keys"),
        Door("entities of a union", "`aliased(Model, union_all(…).subquery())`"),
        Door("distinct rows", "`distinct()` of rows with their primary keys"),
        Door("with_expression", "`query_expression` and `with_expression`"),
        Door("column_property", "a column under `column_property`"),
        Door("column_property of a subquery", "another table's value, inside the scope"),
        Door("column_property of an expression", "`column_property(name + surname)`", refused=True),
        Door("hybrid in Python", "`hybrid_property` on an object"),
        Door("hybrid in SQL", "the same on the class", refused=True),
        Door("text", "`text(…)` without types: ciphertext comes back"),
        Door("type_coerce", "`type_coerce(column, LargeBinary)`: ciphertext comes back"),
        Door("text with columns", "`text(…).columns(…)`"),
        Door("text with a typed parameter", "`text(…).bindparams(…)` seals inside the scope"),
        Door("literal_column", "`literal_column(…, type_=…)` inside the scope"),
        Door("typed parameter", "`bindparam(…, type_=…)` seals inside the scope"),
        Door(
            "parameter of another type", "`bindparam(…, type_=String)` for an encrypted column", refused=True
        ),
        Door("is_(None)", "`is_(None)`, `is_not(None)`"),
        Door("exists", "`exists()` with criteria on other columns"),
        Door("count", "`func.count(column)` counts what is not NULL"),
    ),
    "Questions that ciphertexts cannot answer": (
        Door("==", "`column == value`", refused=True),
        Door("value == column", "`value == column`", refused=True),
        Door("literal == column", "`literal(value) == column`", refused=True),
        Door("bindparam == column", "`bindparam(…) == column`", refused=True),
        Door("column == column", "two encrypted columns", refused=True),
        Door("plain == encrypted", "a plain column and an encrypted one", refused=True),
        Door("filter_by", "`filter_by(name=value)`", refused=True),
        Door("in_", "`column.in_([…])`", refused=True),
        Door("in_ of a subquery", "`column.in_(select(…))`", refused=True),
        Door("in_ of encrypted", "`plain.in_(select(column))`", refused=True),
        Door("== subquery", "`plain == select(column).scalar_subquery()`", refused=True),
        Door("tuple_", "`tuple_(id, column).in_([…])`", refused=True),
        Door("<", "`column < value`", refused=True),
        Door("between", "`column.between(…)`", refused=True),
        Door("LIKE", "`column.like(…)`", refused=True),
        Door("any_", "`value == any_(column)`", refused=True, drivers=POSTGRESQL),
        Door("order_by", "`order_by(column)`", refused=True),
        Door("order_by desc", "`order_by(column.desc())`", refused=True),
        Door("desc and nulls_last", "`order_by(nulls_last(desc(column)))`", refused=True),
        Door("order_by by name", '`order_by("name")` of a selected column', refused=True),
        Door("order_by of a relationship", "`relationship(order_by=…)`", refused=True),
        Door("group_by", "`group_by(column)`", refused=True),
        Door("having", "`having(func.min(column) > value)`", refused=True),
        Door("distinct column", "`select(column).distinct()`", refused=True),
        Door("distinct on", "`distinct(column)`", refused=True, drivers=POSTGRESQL),
        Door("count distinct", "`func.count(column.distinct())`", refused=True),
        Door("count of distinct()", "`func.count(distinct(column))`", refused=True),
        Door("union of a column", "`union` compares, where `union_all` does not", refused=True),
        Door("intersect", "`intersect` compares", refused=True),
        Door("except_", "`except_` compares", refused=True),
        Door("function", "`func.lower(column)`", refused=True),
        Door("function in WHERE", "`func.lower(column) == value`", refused=True),
        Door("aggregate", "`func.max(column)`", refused=True),
        Door("string aggregate", "`func.aggregate_strings(column, …)`", refused=True),
        Door("coalesce", "`func.coalesce(column, value)`", refused=True),
        Door("window", "`func.row_number().over(order_by=column)`", refused=True),
        Door("partition_by", "`over(partition_by=column)`", refused=True),
        Door("lag", "`func.lag(column).over(…)`", refused=True),
        Door("cast", "`cast(column, String)`", refused=True),
        Door("case", "`case((…, column), else_=value)`", refused=True),
        Door("case of a column", "`case({value: …}, value=column)`", refused=True),
        Door("concat", "`column + value`", refused=True),
        Door("JSON path", '`column["key"]`', refused=True),
        Door("collate", "`collate(column, …)`", refused=True),
        Door("subquery == value", "a column of a subquery", refused=True),
        Door("join on encrypted", "`join(…, column == column)`", refused=True),
    ),
    "Blind indexes, filled": (
        Door("index: add", "`session.add_all`: rows of several tenants; one column, two, and a default"),
        Door("index: change", "attributes of a loaded object are assigned and flushed"),
        Door("index: merge", "`session.merge`: into a row that is there, and as a new one"),
        Door("index: savepoint", "`begin_nested`, rolled back and released"),
        Door("index: another tenant", "a loaded object moves: its tokens are made anew"),
        Door("index: NULL", "a value that goes takes its tokens along"),
        Door("index: bulk_save_objects", "the legacy bulk interface for new objects"),
        Door("index: bulk_insert_mappings", "the legacy bulk interface for dictionaries"),
        Door("index: ORM bulk insert", "`insert(Model)` with a list of dictionaries"),
        Door("index: ORM insert of one row", "`insert(Model).values(…)`"),
        Door("index: ORM insert returning entities", "`insert(Model).returning(Model)`"),
        Door("index: Core insert", "`insert(table).values(…)` of one row"),
        Door("index: Core executemany", "`insert(table)` with a list of dictionaries"),
        Door("index: insertmanyvalues", "`insert(table).returning(…)` with a list of dictionaries"),
        Door("index: upsert", "of many, the indexes with their columns"),
        Door("index: Core update", "`update(table).values(…)`, inside the scope"),
        Door("index: Core update of many", "`update(table)` with a list of dictionaries, inside the scope"),
        Door("index: ORM update", "`update(Model)`, inside the scope"),
        Door("index: ORM update by primary key", "`update(Model)` with a list of dictionaries"),
        Door("index: update returning", "`update(Model).returning(…)`", drivers=WITHOUT_MARIADB),
        Door("index: joined inheritance", "indexes in both tables, by flush and in bulk"),
        Door("index: AsyncSession", "add, insert, search", drivers=ASYNCHRONOUS),
        Door("index: from_select", "`insert().from_select(…)` of tokens", refused=True),
        Door("index: written by the application", "a value for the index itself", refused=True),
        Door("index: part of a compound one", "`update().values(…)` of one of two columns", refused=True),
    ),
    "Blind indexes, searched": (
        Door("index: ==", "`column == value`, normalized"),
        Door("index: value == column", "`value == column`"),
        Door("index: !=", "`column != value`"),
        Door("index: in_", "`column.in_([…])`"),
        Door("index: in_ of nothing", "`column.in_([])`"),
        Door("index: not_in", "`column.not_in([…])`"),
        Door("index: filter_by", "`filter_by(name=value)`"),
        Door("index: and, or, not", "`and_`, `or_`, `not_` of equalities"),
        Door("index: several columns", "`Model.index == (value, value)`"),
        Door("index: Core", "`table.c.column == value`"),
        Door("index: aliased", "`aliased(Model).column == value`"),
        Door("index: join", "in the ON of a join"),
        Door("index: criteria of a relationship", "`join(relationship.and_(column.in_([…])))`"),
        Door("index: with_loader_criteria", "`with_loader_criteria(Model, column == value)`"),
        Door("index: criteria of an eager load", "`joinedload(relationship.and_(column == value))`"),
        Door("index: has", "`relationship.has(column == value)`"),
        Door("index: subquery", "`in_(select(…).where(column == value))`"),
        Door("index: exists", "`exists().where(column == value)`"),
        Door("index: CTE", "`select(…).where(column == value).cte()`"),
        Door("index: count", "`select(func.count()).where(column == value)`"),
        Door("index: entities", "entities with their relationships, also by `session.query`"),
        Door("index: update where", "`update().where(column == value)`"),
        Door("index: delete where", "`delete().where(column == value)`"),
        Door("index: AsyncSession search", "awaited and streamed", drivers=ASYNCHRONOUS),
        Door("index: after a rotation", "the data key rotates; tokens stay"),
        Door("index: search without a scope", "nothing says whose rows are looked for", refused=True),
        Door("index: LIKE", "`column.like(…)`", refused=True),
        Door("index: <", "`column < value`", refused=True),
        Door("index: between", "`column.between(…)`", refused=True),
        Door("index: order_by", "`order_by(column)`", refused=True),
        Door("index: function", "`func.lower(column) == value`", refused=True),
        Door("index: column == column", "an indexed column and another", refused=True),
    ),
    "Models": (
        Door("joined inheritance", "encrypted columns in both tables"),
        Door("joined inheritance in bulk", "`insert(Subclass)` with a list of dictionaries"),
        Door("single-table inheritance", "encrypted columns of the base and of a subclass"),
        Door("concrete inheritance", "each class has its own table"),
        Door("concrete polymorphic union", "`ConcreteBase`: one SELECT over all tables", refused=True),
        Door("selectin_polymorphic", "subclass columns by a second SELECT, in a scope"),
        Door("selectin_polymorphic without a scope", "the tenant stands in the parent's table", refused=True),
        Door("with_polymorphic", "subclass columns by a join"),
        Door("mixin", "columns of a mixin in two tables"),
        Door("abstract base", "columns and `__vault__` of an abstract class"),
        Door("dataclass", "`MappedAsDataclass`"),
        Door("Annotated", "`Annotated[str, mapped_column(Encrypted(…))]` in two tables"),
        Door("type_annotation_map", "`Encrypted` by the annotation's type"),
        Door("imperative mapping", "`registry.map_imperatively` of a table"),
        Door("composite", "`composite` over encrypted columns"),
        Door("composite in SQL", "`Model.composite == value`", refused=True),
        Door("synonym", "`synonym` of an encrypted column"),
        Door("synonym in SQL", "`Model.synonym == value`", refused=True),
        Door("validates", "`@validates` sees and changes the value"),
        Door("mutable JSON", "`MutableDict.as_mutable(Encrypted(JSON))`, changed in place"),
        Door("renamed", "table and column renamed, `field=` pinned"),
        Door("column key", "name, key and attribute all differ"),
        Door("reflection", "`Table(…, autoload_with=…)` with the column overridden"),
        Door("automap", "`automap_base` with the column overridden"),
    ),
    "Objects and sessions": (
        Door("pickle", "a loaded object is pickled, unpickled, merged"),
        Door("deep copy", "a loaded object is copied and added under another key"),
        Door("dictionary of an object", "`vars(object)` and `inspect(object)` hold values, no stand-in"),
        Door("scoped_session in threads", "two tenants, many threads", drivers=BLOCKING),
        Door("async_scoped_session in tasks", "two tenants, many tasks", drivers=ASYNCHRONOUS),
        Door("AsyncSession", "add, get, refresh, merge, delete", drivers=ASYNCHRONOUS),
        Door("AsyncSession stream", "`stream`, `stream_scalars`, `partitions`", drivers=ASYNCHRONOUS),
        Door("AsyncConnection", "Core statements and `stream`", drivers=ASYNCHRONOUS),
        Door("AsyncAttrs", "`await object.awaitable_attrs.…`", drivers=ASYNCHRONOUS),
    ),
}
"""All doors by group."""


def door_named(name: str) -> Door:
    """Return a door.

    Raises:
        LookupError: no door has that name.
    """
    for doors in GROUPS.values():
        for door in doors:
            if door.name == name:
                return door
    raise LookupError(f"no door is called {name!r}")
