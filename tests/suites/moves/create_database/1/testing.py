import psycopg
from sqlalchemy import create_engine

with psycopg.connect("postgresql://postgres@shop-db:5432/postgres", autocommit=True) as admin:
    admin.execute("DROP DATABASE IF EXISTS shop_test")
    admin.execute("CREATE DATABASE shop_test")

engine = create_engine("postgresql+psycopg://shop@shop-db:5432/shop_test")
